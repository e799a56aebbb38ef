/** What is told to the kernel without being asked. */
import { IoBuffer } from '../sys/io-buffer.js';
import { NOTIFY_CODE, NOTIFY_INVAL_INODE_OUT, OUT_HEADER } from './abi.js';
import { writeReply } from './channel.js';

const SIZE = OUT_HEADER.size + NOTIFY_INVAL_INODE_OUT.size;

/**
 * Makes the kernel forget the attributes and pages of nodes, those that it knows. It waits for
 * pages that are being read: so nothing may be read that only the calling thread would answer.
 */
export function invalidateNodes(fd: number, nodes: readonly number[]): void {
  const message = new IoBuffer(SIZE);
  // A notification: no request's number, and its code in the place of an error.
  OUT_HEADER.write(message.view, 0, { len: SIZE, error: NOTIFY_CODE.INVAL_INODE, unique: 0 });
  for (const ino of nodes) {
    // All of it: from 0 on, without an end.
    NOTIFY_INVAL_INODE_OUT.write(message.view, OUT_HEADER.size, { ino });
    // ENOENT, of nodes that it does not know, is as good.
    writeReply(fd, message, SIZE);
  }
}
