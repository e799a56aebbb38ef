/** The sorted table of commands: it drives dispatch and help. Modules load only when they are run. */

export interface Command {
  readonly name: string;
  readonly usage: string;
  readonly summary: string;
  /** Runs with the words behind the command's name; answers the exit code. */
  run(words: string[]): Promise<number>;
}

export const COMMANDS: readonly Command[] = [
  {
    name: 'info',
    usage: 'info [-f FMT] [--output=human|json] [--backing-chain] [-U] IMAGE',
    summary: "show an image's facts, as qemu-img info does",
    run: async (words) => (await import('./info-command.js')).runInfoCommand(words),
  },
  {
    name: 'mount',
    usage: 'mount [-o OPTIONS] IMAGE MOUNTPOINT',
    summary: 'the same as without the word `mount`',
    run: async (words) => (await import('./mount.js')).runMount(words),
  },
  {
    name: 'umount',
    usage: 'umount MOUNTPOINT',
    summary: 'unmount, and wait until the image is released',
    run: async (words) => (await import('./umount-command.js')).runUmountCommand(words),
  },
];

export function findCommand(name: string | undefined): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}
