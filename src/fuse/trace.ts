/** `--debug`: each request and its answer in one line, from the opcode table. */
import { errnoName } from '../errors.js';
import { IN_HEADER } from './abi.js';
import type { Opcode } from './opcode.js';
import type { Request } from './request.js';

const MS_DIGITS = 3;

/** `READ #12 node 8 {fh: 0, offset: 4096, …} -> 4096 bytes, 0.025 ms`. */
export function traceLine(
  opcode: Opcode | undefined,
  request: Request,
  error: number,
  payload: number,
  ms: number,
): string {
  const name = opcode?.name ?? `opcode ${request.opcode}`;
  const unique = request.uniqueHigh * 0x1_0000_0000 + request.uniqueLow;
  const outcome = error === 0 ? `${payload} bytes` : errnoName(error);
  const words = [
    `${name} #${unique} node ${request.kernelNodeid}`,
    ...argumentsOf(opcode, request),
  ];
  return `${words.join(' ')} -> ${outcome}, ${ms.toFixed(MS_DIGITS)} ms`;
}

function argumentsOf(opcode: Opcode | undefined, request: Request): string[] {
  if (opcode === undefined) return [];
  const { layout, named } = opcode;
  const words: string[] = [];
  if (layout !== null && request.length >= IN_HEADER.size + layout.size) {
    const fields = Object.entries(layout.read(request.view, IN_HEADER.size));
    words.push(`{${fields.map(([key, value]) => `${key}: ${value}`).join(', ')}}`);
  }
  if (named) words.push(JSON.stringify(request.text(layout?.size ?? 0)));
  return words;
}
