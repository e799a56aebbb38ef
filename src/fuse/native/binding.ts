/**
 * The package fuse-native, found and loaded for who asks for it. Its install script need not have run: what it would
 * build lies prebuilt in the package, and so does the libfuse 2 that this needs.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { ImageError } from '../../errors.js';
import { loadLibrary } from '../../sys/libc.js';

const NAME = 'fuse-native';
/** Some of what is used below is not its public interface: no other version will do. */
const VERSION = '2.2.6';

/**
 * Answers a request: an errno below zero, or else 0, and what was asked for; to `read`, `write` and those for extended
 * attributes the number of bytes. Must be called once.
 */
export type Answer = (result: number, ...values: readonly unknown[]) => void;

/** By the names that fuse-native has for them. Each takes an `Answer` behind its arguments. */
export type Handlers = Readonly<Record<string, (...args: never[]) => void>>;

/** Lets libfuse know what it has answered, and that a buffer of its own is not used any more. */
type Signal = (result: number, memory: ArrayBufferLike) => void;

/** A mount. What begins with `_` is not public. */
export interface NativeMount {
  /** `done`: the kernel's INIT has come, or there is no mount. */
  mount(done: (error: Error | null) => void): void;
  /** All options of the mount, as `-oNAME,NAME=VALUE`; empty where there are none. */
  _fuseOptions: () => string;
  /** Given the caller's buffer, which `ops.getxattr` is not: a longer value would be read past its end. */
  _op_getxattr: (signal: Signal, path: string, name: string, target: Buffer) => void;
  _op_listxattr: (signal: Signal, path: string, target: Buffer) => void;
}

export type NativeFuse = new (
  target: string,
  handlers: Handlers,
  options: { readonly timeout: false },
) => NativeMount;

const required = createRequire(import.meta.url);

/** Throws an ImageError that says how to get what is missing. */
export function loadFuseNative(): NativeFuse {
  const prebuilt = findFuseNative();
  try {
    // Found by its name from then on, where the system has none, or another.
    loadLibrary(join(prebuilt, 'libfuse.so'));
    return required(NAME) as NativeFuse;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    const message = `the package ${NAME} cannot be loaded: ${reason}`;
    throw new ImageError('unsupported', 'ENOEXEC', message, {}, error);
  }
}

/** The folder of its binaries for this machine; what loading them comes to is not known then. Throws an ImageError. */
export function findFuseNative(): string {
  const prebuilt = join(findPackage(), 'prebuilds', `linux-${process.arch}`);
  if (existsSync(prebuilt)) return prebuilt;
  const message = `the package ${NAME} has no binary for linux-${process.arch}`;
  throw new ImageError('unsupported', 'ENOEXEC', message, { limit: 'transport=kernel needs none' });
}

/** Whether it would be found. */
export function hasFuseNative(): boolean {
  try {
    findFuseNative();
    return true;
  } catch {
    return false;
  }
}

function findPackage(): string {
  const limit = `npm install -g --ignore-scripts ${NAME}@${VERSION}`;
  let manifest: string;
  try {
    manifest = required.resolve(`${NAME}/package.json`);
  } catch (error) {
    const message = `the package ${NAME} is not installed`;
    throw new ImageError('missing', 'ENOENT', message, { limit }, error);
  }
  const { version } = required(manifest) as { version: string };
  if (version === VERSION) return dirname(manifest);
  throw new ImageError('unsupported', 'ENOEXEC', `the package ${NAME} is of version ${version}`, {
    limit,
  });
}
