/** `user=NAME`: a mount that root makes, and that an ordinary user's process serves. */
import {
  findUser,
  forbidNewPrivileges,
  hasNoNewPrivileges,
  startAgain,
  type User,
} from '../sys/privileges.js';
import { type MountSettings, textOption, usage } from './options.js';

/** Undefined where the process stays who it is. Throws an ImageError where it cannot become that user. */
export function mountUser(settings: MountSettings): User | undefined {
  const name = textOption(settings, 'user');
  if (name === undefined) return undefined;
  const user = findUser(name);
  if (user === undefined) throw usage('user', `no user '${name}'`, 'a name, or a number');
  if (user.uid === 0) throw usage('user', `'${name}' is root`, 'an ordinary user');
  const own = process.geteuid!();
  if (own === user.uid) return undefined;
  if (own !== 0) throw usage('user', `only root can become '${name}'`, 'leave it out');
  return user;
}

/**
 * To be called before the process that will serve starts, or in it where it is `alone`: it is started anew
 * then. New privileges are forbidden to the first thread, and so to all that it starts.
 */
export function forbidPrivileges(alone: boolean): void {
  if (hasNoNewPrivileges()) return;
  forbidNewPrivileges();
  if (alone) startAgain();
}
