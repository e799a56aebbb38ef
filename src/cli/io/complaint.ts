/** How a command of qemu-io fails: what was wrong with it, and where that is printed. */

/** A line of the command's output. */
export class Complaint extends Error {}

/** The command's words are wrong: its usage is printed, and the message, if any, on standard error. */
export class WrongWords extends Error {}

/** A line on standard error that does not begin with the program's name. */
export class PlainError extends Error {}
