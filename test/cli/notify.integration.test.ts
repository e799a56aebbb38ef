/** A mount as a service: what systemd is told, by sd_notify(3), and what a stop loses: nothing. */
import { closeSync } from 'node:fs';
import { expect } from 'chai';
import koffi from 'koffi';
import { noMounts, type Sandbox, skipSuite, until, useSandbox } from '../helpers/mount.js';
import { createImage, MIB, oracle } from '../helpers/mount-images.js';

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const MSG_DONTWAIT = 0x40;

/** A socket of datagrams by that name, where '@' begins an abstract one; answers what has come. */
function listen(name: string): { messages: () => string[]; close: () => void } {
  const lib = koffi.load(null);
  const fd = lib.func('int socket(int, int, int)')(AF_UNIX, SOCK_DGRAM, 0) as number;
  const address = Buffer.from(`\x01\0${name.replace(/^@/, '\0')}`, 'latin1');
  const bound = lib.func('int bind(int, const uint8_t *, uint32_t)')(fd, address, address.length);
  expect(bound).to.equal(0);
  const recv = lib.func('long recv(int, _Out_ uint8_t *, size_t, int)');
  const messages: string[] = [];
  return {
    messages: () => {
      const buffer = Buffer.alloc(4096);
      for (;;) {
        const length = recv(fd, buffer, buffer.length, MSG_DONTWAIT) as number;
        if (length <= 0) return messages;
        messages.push(buffer.toString('utf8', 0, length));
      }
    },
    close: () => closeSync(fd),
  };
}

describe('a mount as a service', () => {
  skipSuite(noMounts);
  const box = useSandbox();

  for (const [kind, nameOf] of [
    ['an abstract name', () => `@qcow2fs-test-${process.pid}`],
    ['a path', (sandbox: Sandbox) => sandbox.path('notify')],
  ] as const) {
    it(`tells ${kind} that it is ready and that it stops, and then loses nothing`, async () => {
      const image = await createImage(box(), 'vm.qcow2', 4 * MIB);
      const mnt = box().folder();
      const name = nameOf(box());
      const systemd = listen(name);
      try {
        const words = [image, mnt, '--foreground', '-o', 'rw'];
        const service = box().startCli(words, { env: { NOTIFY_SOCKET: name } });
        await until(() => systemd.messages().length > 0, 'it is ready');
        expect(systemd.messages()).to.deep.equal([`READY=1\nSTATUS=${image} is served on ${mnt}`]);
        // Without fsync.
        await box().must('sh', ['-c', 'printf precious 1<> "$0"', `${mnt}/disk.raw`]);
        service.child.kill('SIGTERM');
        expect(await service.ended()).to.deep.include({ status: 0 });
        expect(systemd.messages().slice(1)).to.deep.equal(['STOPPING=1']);
        const disk = await oracle(box(), image);
        const start = await box().must('head', ['-c', '8', disk]);
        expect(start).to.equal('precious');
      } finally {
        systemd.close();
      }
    });
  }
});
