/** Suites that are run over each transport of the mount. */
import { hasFuseNative } from '#src/fuse/native/binding.js';
import { LIMITS } from '#src/fuse/native/mount.js';
import { noMounts, skipSuite, type Transport } from './mount.js';

/** What a suite is given. */
export interface TransportSuite {
  readonly transport: Transport;
  /** `it` for what libfuse 2 lacks, or what is the same whatever the transport. */
  itByKernel(title: string, body: Mocha.AsyncFunc): void;
}

/** As `describe`, once for each transport; the suite is skipped where nothing can be mounted by it. */
export function describeTransports(title: string, body: (suite: TransportSuite) => void): void {
  describe(title, () => {
    skipSuite(noMounts);
    body({ transport: 'kernel', itByKernel: it });
  });
  describe(`${title}, through fuse-native`, () => {
    skipSuite(noFuseNative);
    body({ transport: 'fuse-native', itByKernel: () => {} });
  });
}

/** Why nothing can be mounted through fuse-native here, or null. */
export function noFuseNative(): string | null {
  const missing = `fuse-native has no binary for ${process.platform}-${process.arch}`;
  return noMounts() ?? (hasFuseNative() ? null : missing);
}

/** What a mount said, less what each says of the transport fuse-native. */
export function withoutLimits(stderr: string): string {
  return stderr.replace(`qcow2fs: warning: ${LIMITS}\n`, '');
}
