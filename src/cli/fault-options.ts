/** Faults on purpose: the options of QEMU's driver `blkdebug`, in a file, in JSON or in words. */
import { readFileSync } from 'node:fs';
import { ImageError, invalid } from '../errors.js';
import {
  type ErrorRule,
  FAULT_EVENTS,
  FAULT_REQUESTS,
  type FaultPlan,
  faultPlan,
  type StateRule,
} from '../storage/faults.js';
import type { OptionMap } from './json-options.js';
import { INVALID_VALUE, Options } from './node-options.js';

/** The driver of faults on purpose. */
export const FAULTY = 'blkdebug';
const PREFIX = `${FAULTY}:`;
const EIO = 5n;
const SECTIONS = ['inject-error', 'set-state'] as const;
const LIMITS = [
  'max-transfer',
  'opt-write-zero',
  'max-write-zero',
  'opt-discard',
  'max-discard',
] as const;
/** Of the sections in a file; each takes its own of them. */
const KEYS = ['event', 'state', 'errno', 'sector', 'once', 'immediately', 'iotype', 'new_state'];
const LARGEST = 2 ** 31 - 1;

type Section = (typeof SECTIONS)[number];
type Rules = Readonly<Record<Section, readonly Options[]>>;
const NO_RULES: Rules = { 'inject-error': [], 'set-state': [] };

export interface FaultyName {
  /** Undefined where none is named. */
  readonly config: string | undefined;
  readonly file: string;
}

/** `blkdebug:CONFIG:FILE`, taken apart. */
export function faultyName(name: string): FaultyName | undefined {
  if (!name.startsWith(PREFIX)) return undefined;
  const rest = name.slice(PREFIX.length);
  const end = rest.indexOf(':');
  if (end < 0) throw invalid('blkdebug requires both config file and image path');
  return { config: rest.slice(0, end) || undefined, file: rest.slice(end + 1) };
}

/** The rules of the options, and of the file `config` before them. Undefined where nothing is to fail. */
export function takeFaults(options: Options, config: string | undefined): FaultPlan | undefined {
  const rules = config === undefined ? NO_RULES : readConfig(config);
  const all = (name: Section) => [...rules[name], ...takeList(options, name)];
  const errors = all('inject-error').map(errorRule);
  const states = all('set-state').map(stateRule);
  return errors.length + states.length === 0 ? undefined : faultPlan(errors, states);
}

function takeList(options: Options, name: string): Options[] {
  const list: Options[] = [];
  for (;;) {
    const found = options.takeChild(`${name}.${list.length}`);
    if (found == null) return list;
    list.push(found);
  }
}

/**
 * Takes the limits of the device that is imitated. What they say of transfers and discards changes nothing
 * here; answers the bytes that zeroes must fill to be more than written ones, 0 for any.
 */
export function takeLimits(options: Options): number {
  const align = options.takeSize('align') ?? 0;
  const isGood = (value: number, unit: number) => value < LARGEST && value % unit === 0;
  if (!isGood(align, 1) || (align !== 0 && !Number.isInteger(Math.log2(align)))) {
    throw invalid(`Cannot meet constraints with align ${align}`);
  }
  const unit = Math.max(align, 1);
  const values = new Map(LIMITS.map((name) => [name, options.takeSize(name) ?? 0]));
  for (const [name, value] of values) {
    const least = values.get(name.replace('max-', 'opt-') as (typeof LIMITS)[number]) || unit;
    if (!isGood(value, name.startsWith('opt-') ? unit : Math.max(least, unit))) {
      throw invalid(`Cannot meet constraints with ${name} ${value}`);
    }
  }
  return values.get('opt-write-zero')!;
}

/** Sections of `key = "value"`, as QEMU's configuration files have them. */
function readConfig(path: string): Rules {
  const rules: Record<Section, OptionMap[]> = { 'inject-error': [], 'set-state': [] };
  let section: OptionMap | undefined;
  for (const line of readText(path).split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const head = /^\[(\S+)\]\s*$/.exec(line)?.[1];
    const [, key, value] = /^\s*(\S+)(?!\S)\s*=\s*"([^"]+)"/.exec(line) ?? [];
    if (head !== undefined) {
      const known = SECTIONS.find((name) => name === head);
      if (known === undefined) throw invalid(`There is no option group '${head}'`);
      section = new Map();
      rules[known].push(section);
    } else if (key === undefined || value === undefined) {
      throw invalid(`Invalid parameter '${line.trim()}'`);
    } else if (section === undefined) throw invalid('no group defined');
    else if (!KEYS.includes(key)) throw invalid(`Invalid parameter '${key}'`);
    else section.set(key, value);
  }
  const optionsOf = (maps: readonly OptionMap[]) => maps.map((map) => new Options(map));
  return {
    'inject-error': optionsOf(rules['inject-error']),
    'set-state': optionsOf(rules['set-state']),
  };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { errno, code } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error;
    const why = code === 'ENOENT' ? 'No such file or directory' : (error as Error).message;
    const message = `Could not read blkdebug config file: ${why}`;
    throw new ImageError('missing', 'ENOENT', message, {}, error);
  }
}

function takeEvent(options: Options) {
  const event = options.takeWord('event', FAULT_EVENTS, INVALID_VALUE);
  if (event === undefined) throw invalid('Missing event name for rule');
  return event;
}

function errorRule(options: Options): ErrorRule {
  const event = takeEvent(options);
  const state = Number(options.takeNumber('state') ?? 0n);
  const errno = Number(options.takeNumber('errno') ?? EIO);
  const sector = options.takeNumber('sector');
  const request = options.takeWord('iotype', FAULT_REQUESTS, INVALID_VALUE) ?? null;
  const once = options.takeSwitch('once') ?? false;
  // Whether the error comes after the caller has waited once: here each waits in the same way.
  options.takeSwitch('immediately');
  options.end((key) => `[inject-error] section doesn't support the option '${key}'`);
  const at = sector === undefined || BigInt.asIntN(64, sector) < 0n ? null : Number(sector);
  return { event, state, errno, sector: at, request, once };
}

function stateRule(options: Options): StateRule {
  const event = takeEvent(options);
  const state = Number(options.takeNumber('state') ?? 0n);
  const newState = Number(options.takeNumber('new_state') ?? 0n);
  options.end((key) => `[set-state] section doesn't support the option '${key}'`);
  return { event, state, newState };
}
