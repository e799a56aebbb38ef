/** Text in the language of man(7). */

/** A term, and behind it what it means. */
export function item(term: string, meaning: string): string[] {
  return ['.TP', `.B ${escapeText(term)}`, escapeText(meaning)];
}

/** As it stands there: no requests, no escapes, and signs that can be copied from the page. */
export function escapeText(text: string): string {
  const plain = text
    .replace(/…/g, '...')
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .replace(/`/g, '\\(ga')
    .replace(/"/g, '\\(dq')
    .replace(/'/g, '\\(aq')
    .replace(/\^/g, '\\(ha')
    .replace(/~/g, '\\(ti');
  return /^[.']/.test(plain) ? `\\&${plain}` : plain;
}
