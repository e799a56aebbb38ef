/** Colours, for people who look at a terminal and have not asked for none (https://no-color.org). */

const CODES = { green: 32, red: 31, yellow: 33 } as const;

export type Colour = keyof typeof CODES;

/** Whether standard output can be coloured. */
export function hasColours(): boolean {
  const { NO_COLOR = '', TERM } = process.env;
  return NO_COLOR === '' && TERM !== 'dumb' && process.stdout.isTTY === true;
}

export function coloured(colour: Colour, text: string): string {
  return hasColours() ? `\x1b[${CODES[colour]}m${text}\x1b[0m` : text;
}
