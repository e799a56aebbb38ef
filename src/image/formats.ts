/** The formats beside qcow2 and raw. */
import { BOCHS } from './bochs.js';
import { CLOOP } from './cloop.js';
import type { FormatDriver } from './format.js';
import { PARALLELS } from './parallels.js';
import { QCOW1 } from './qcow1/driver.js';
import { QED } from './qed/driver.js';
import { VDI } from './vdi.js';
import { VHDX } from './vhdx.js';
import { VMDK } from './vmdk/driver.js';
import { VPC } from './vpc.js';

const DRIVERS: readonly FormatDriver[] = [
  QED,
  QCOW1,
  VDI,
  VPC,
  VMDK,
  VHDX,
  PARALLELS,
  BOCHS,
  CLOOP,
];

/** The driver of a format; undefined where there is none. */
export function formatDriver(format: string): FormatDriver | undefined {
  return DRIVERS.find((driver) => driver.format === format);
}
