/** What an image stands on (null disks, devices), and the options of open images, held against QEMU's tools. */
import { mkdirSync } from 'node:fs';
import { expect } from 'chai';
import { BothIo } from '../helpers/both-io.js';
import { expectSame } from '../helpers/command-lines.js';
import { runInProcess } from '../helpers/in-process.js';
import { qemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const NULL = 'json:{"driver":"null-co","size":65536,"read-zeroes":true}';

const LINES = `
  info null-co://
  info -f null-co null-co://
  info -f raw null-aio://
  info null-aio://foo
  info null-co://?size=1M
  info -f null-co a.qcow2
  map ${NULL}
  map --output=json ${NULL}
  map --output=json json:{"driver":"raw","offset":4096,"file":{"driver":"null-aio","read-zeroes":true,"size":65536}}
  map --output=json json:{"driver":"null-co","foo":1}
  map --output=json json:{"driver":"null-co","latency-ns":-1}
  convert -O raw -S 512 ${NULL} o.raw
  convert -O qcow2 -S 512 ${NULL} o.q
  convert -O qcow2 -S 0 ${NULL} o.q
  compare null-co:// ${NULL}
  dd if=${NULL} of=o.raw bs=4k count=2
  check null-co://
  resize -f raw null-co:// 2G
  info -f host_device a.qcow2
  info -f host_cdrom a.qcow2
  info -f file a.qcow2
  info -f file /dev/null
  info -f host_device /dev/null
`;

/** Options of an open image with a backing file: each on its own. */
const REOPENED = [
  ...['backing.foo=1', 'backing.driver=raw', 'backing.driver=qcow2', 'backing.node-name=x'],
  ...[
    'backing.size=1',
    'backing.lazy-refcounts=on',
    'backing.file.driver=raw',
    'backing.discard=on',
  ],
  ...['backing.file.node-name=x', 'backing.backing=x', 'backing.backing.foo=1', 'file.foo=1'],
  ...['backing.cache-size=1x', 'file.driver=raw', 'file.node-name=x', 'driver=raw', 'node-name=x'],
  ...['cache-clean-interval=-1', 'cache-clean-interval=5000000000', 'cache-clean-interval=x'],
  ...['cache-clean-interval=5', 'refcount-cache-size=256T', 'l2-cache-entry-size=33k'],
  ...['l2-cache-entry-size=128k', 'overlap-check=all,overlap-check.template=all'],
  ...['overlap-check=all,overlap-check.template=none', 'overlap-check.template=foo'],
];

/** Words of `open -o`. */
const OPENED = [
  ...['driver=null-co', 'driver=null-co,size=1k,read-zeroes=on', 'driver=null-aio,latency-ns=-5'],
  ...['driver=null-co,foo=1', 'driver=null-co,filename=null-co://'],
  ...['driver=raw,file.driver=null-co,file.size=1M', 'driver=qcow2,file.driver=null-co'],
  ...['driver=file,filename=a.qcow2', 'driver=file,filename=/dev/null', 'driver=host_cdrom'],
  ...['driver=host_device,filename=/dev/null', 'driver=host_device,filename=a.qcow2'],
  ...['driver=host_cdrom,filename=/tmp', 'driver=host_device,filename=/tmp'],
  'driver=qcow2,file.driver=host_device,file.filename=a.qcow2',
];

describe('what an image stands on', function () {
  this.timeout(120_000);
  const temp = useTempFolder();

  async function ours(...words: string[]): Promise<void> {
    const { status, stderr } = await runInProcess(words, temp.path);
    expect(status, stderr).to.equal(0);
  }

  function makeImages(folder: string): void {
    qemuImg('create', '-q', '-f', 'qcow2', `${folder}/b.qcow2`, '1M');
    qemuImg(
      'create',
      '-q',
      '-f',
      'qcow2',
      '-F',
      'qcow2',
      '-b',
      'b.qcow2',
      `${folder}/a.qcow2`,
      '1M',
    );
  }

  it("is taken by our qemu-img as by QEMU's own", async () => {
    const [template, scratch] = [temp.at('template'), temp.at('scratch')];
    mkdirSync(template);
    mkdirSync(scratch);
    makeImages(template);
    await expectSame(LINES, template, scratch);
  });

  it('becomes a raw file with its first block, as QEMU makes it', async () => {
    for (const sparse of ['0', '512']) {
      const maps: string[] = [];
      for (const run of [qemuImg, ours]) {
        const path = temp.at('o.raw');
        await run('convert', '-O', 'raw', '-S', sparse, NULL, path);
        maps.push(qemuImg('map', '-f', 'raw', '--output=json', path));
      }
      expect(maps[1]).to.equal(maps[0]);
    }
  });

  it("is opened by our qemu-io as by QEMU's own", () => {
    const commands = OPENED.flatMap((words) =>
      ['', '-r '].flatMap((flag) => [
        `open ${flag}-o ${words}`,
        ...['length', 'info', 'write 0 512', 'discard 0 512', 'write -z 0 512', 'close'],
      ]),
    );
    new BothIo(temp).same(makeImages, { commands, printsOnly: true });
  });

  it("is opened anew by our qemu-io as by QEMU's own", () => {
    const named = ['node-name', 'file.node-name', 'backing.node-name'].flatMap((key) => [
      ...[
        `open -o ${key}=x a.qcow2`,
        'reopen',
        `reopen -o ${key}=x`,
        `reopen -o ${key}=y`,
        'close',
      ],
    ]);
    const reopened = REOPENED.map((words) => `reopen -o ${words}`);
    const commands = [...named, 'open a.qcow2', ...reopened];
    new BothIo(temp).same(makeImages, { commands, printsOnly: true });
  });
});
