/** `map --draw` and `map --html`: on a terminal, in a file, and in a real browser. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect } from 'chai';
import { Browser } from '../helpers/browser.js';
import { CLI, lacking, skipSuite, useSandbox } from '../helpers/mount.js';

/** A folder and a file whose path would end a script, and run another. */
const FOLDER = 'x<';
const NAME = 'script><img src=x onerror="document.title=1">&amp;.qcow2';

describe('map --draw and --html', () => {
  skipSuite(() => lacking('qemu-img', 'qemu-io'));
  const box = useSandbox('suite');
  let image: string;
  let base: string;
  before(async () => {
    mkdirSync(box().path(FOLDER));
    base = box().path(FOLDER, NAME);
    image = box().path('vm.qcow2');
    await box().must('qemu-img', ['create', '-f', 'qcow2', base, '64M']);
    await box().must('qemu-io', ['-c', 'write 0 16M', base]);
    await box().must('qemu-img', ['create', '-f', 'qcow2', '-b', base, '-F', 'qcow2', image]);
    await box().must('qemu-io', ['-c', 'write 8M 8M', '-c', 'write -z 32M 8M', image]);
    await box().must('qemu-img', ['snapshot', '-c', '<b>one</b>', image]);
    await box().must('qemu-io', ['-c', 'write 12M 4M', image]);
  });

  it('draws what lies where, in characters that differ without colours', async () => {
    const text = await box().must(process.execPath, [CLI, 'map', '--draw', image], {
      env: { COLUMNS: '75' },
    });
    const lines = text.split('\n');
    expect(lines[0]).to.equal(`${image}: 64 MiB, 64 KiB a character`);
    const picture = lines
      .slice(1, 17)
      .map((line) => line.slice(11))
      .join('');
    const parts: [string, number][] = [
      ...([
        ['1', 8],
        ['▓', 4],
        ['█', 4],
        ['·', 16],
        ['0', 8],
        ['·', 24],
      ] as [string, number][]),
    ];
    expect(picture).to.equal(parts.map(([one, mib]) => one.repeat(mib * 16)).join(''));
    expect(text).to.match(/^▓ data, shared with snapshots: the image +4 MiB +6\.3 %$/m);
    expect(text).to.match(/^1 data: backing file 1 +8 MiB +12\.5 %$/m);
    expect(text).not.to.include('\x1b');
  });

  it('is coloured on a terminal, as wide as that, and not with NO_COLOR', async () => {
    const draw = async (env: Readonly<Record<string, string>>) => {
      const command = 'stty cols 40; exec "$NODE" "$CLI" map --draw "$IMAGE"';
      const all = { NODE: process.execPath, CLI, IMAGE: image, TERM: 'xterm', ...env };
      return box().must('script', ['-qec', command, '/dev/null'], { env: all });
    };
    const coloured = await draw({ NO_COLOR: '' });
    expect(coloured).to.include('\x1b[38;5;33m█');
    expect(coloured).to.include('\x1b[38;5;35m█');
    const plain = (await draw({ NO_COLOR: '1' })).split('\r\n');
    expect(plain.join('')).not.to.include('\x1b');
    expect(plain[1]).to.have.length(40);
  });

  it('draws a part of the disk', async () => {
    const words = ['map', '--draw', '--start-offset=32M', '--max-length=8M', image];
    const text = await box().must(process.execPath, [CLI, ...words]);
    expect(text).to.match(/^0 zeroes: the image +8 MiB +100 %$/m);
    expect(text).to.match(/^ +32 MiB 0000/m);
  });

  it('refuses two pictures at a time, and to write over the image', async () => {
    const both = await box().cli(['map', '--draw', '--html=x.html', image]);
    expect(both.stderr).to.include('exclude each other');
    const over = await box().cli(['map', `--html=${base}`, image]);
    expect(over.status).to.equal(1);
    expect(over.stderr).to.include('no page is written over it');
    await box().must('qemu-img', ['check', base]);
  });

  describe('in a browser', () => {
    skipSuite(() => lacking('chromium'));
    let browser: Browser;
    let page: string;
    before(async () => {
      page = box().path('page.html');
      await box().must(process.execPath, [CLI, 'map', '--html', page, image]);
      browser = new Browser(box().folder('browser'));
      await browser.open(`file://${page}`);
    });
    after(async () => await browser?.close());

    const text = async (id: string) =>
      String(await browser.evaluate(`document.getElementById('${id}').innerText`));
    /** The colour in the middle of a part of the overview. */
    const colourAt = async (part: number) =>
      await browser.evaluate(`(() => {
        const canvas = document.getElementById('overview');
        const x = Math.round(canvas.width * ${part});
        return [...canvas.getContext('2d').getImageData(x, canvas.height / 2, 1, 1).data].join();
      })()`);

    it('is drawn, and asks for nothing but itself', async () => {
      expect(await browser.evaluate('document.documentElement.dataset.drawn')).to.equal('yes');
      expect(browser.requests).to.deep.equal([`file://${page}`]);
      expect(browser.complaints).to.deep.equal([]);
      const colours = await Promise.all([1 / 16, 5 / 32, 7 / 32, 7 / 16, 9 / 16].map(colourAt));
      expect(new Set(colours).size).to.equal(5);
    });

    it('shows names as they are, whatever they hold', async () => {
      expect(await browser.evaluate('document.title')).to.equal('vm.qcow2: where its data lies');
      expect(await browser.evaluate("document.querySelectorAll('img, b').length")).to.equal(0);
      expect(await browser.evaluate("document.querySelectorAll('script').length")).to.equal(2);
      const facts = await browser.evaluate("document.querySelector('.facts').innerText");
      expect(facts).to.include(`${base} (qcow2)`);
      const layers = await browser.evaluate("document.getElementById('layer').options[1].text");
      expect(layers).to.equal(base);
    });

    it('tells what lies under the mouse, and in the box that keys move to', async () => {
      const place = "document.getElementById('map').getBoundingClientRect()";
      const left = Number(await browser.evaluate(`${place}.left`));
      const top = Number(await browser.evaluate(`${place}.top`));
      await browser.point(left + 5, top + 5);
      expect(await text('details')).to.match(/^0x0 to 0x\w+ \(.*\): data: backing file 1, at 0x/);
      await browser.evaluate("document.getElementById('map').focus()");
      await browser.press('End');
      await browser.press('ArrowRight');
      expect(await text('details')).to.include('data: backing file 1');
      for (let count = 0; count < 4; count++) await browser.press('PageDown');
      expect(await text('range')).to.match(/^0 B to 64 MiB, /);
    });

    it('zooms by keys and buttons, down to sectors, and shows the whole disk again', async () => {
      await browser.press('ArrowLeft');
      await browser.press('+');
      expect(await text('range')).to.match(/^0 B to 32 MiB, /);
      await browser.press('PageDown');
      expect(await text('range')).to.match(/^32 MiB to 64 MiB, /);
      await browser.press('Home');
      for (let count = 0; count < 20; count++) await browser.press('+');
      expect(await text('range')).to.match(/, 512 B in each box$/);
      await browser.evaluate("document.getElementById('all').click()");
      expect(await text('range')).to.match(/^0 B to 64 MiB, /);
    });

    it('tells the same in tables, and hides what is not ticked', async () => {
      const legend = String(await browser.evaluate("document.querySelector('.numbers').innerText"));
      expect(legend).to.match(/data, shared with snapshots: the image\s+4 MiB\s+6\.3 %\s+1/);
      await browser.evaluate("document.getElementById('table').open = true");
      await browser.evaluate('new Promise(requestAnimationFrame)');
      expect((await text('runs')).split('\n')).to.have.length(6);
      const before = await colourAt(1 / 16);
      await browser.evaluate("[...document.querySelectorAll('input')].at(-2).click()");
      expect(await colourAt(1 / 16)).not.to.equal(before);
    });

    it('is dark where its reader is', async () => {
      const ground = 'getComputedStyle(document.body).backgroundColor';
      await browser.setDark(false);
      expect(await browser.evaluate(ground)).to.equal('rgb(255, 255, 255)');
      const light = await colourAt(0.9);
      await browser.setDark(true);
      expect(await browser.evaluate(ground)).to.equal('rgb(20, 24, 29)');
      await browser.evaluate('new Promise(requestAnimationFrame)');
      expect(await colourAt(0.9)).not.to.equal(light);
      expect((await browser.picture()).subarray(1, 4).toString()).to.equal('PNG');
      expect(browser.complaints).to.deep.equal([]);
    });

    it('draws a disk of no bytes, and keeps a page of many runs small', async () => {
      const empty = box().path('empty.raw');
      writeFileSync(empty, '');
      await box().must(process.execPath, [CLI, 'map', '-f', 'raw', `--html=${page}`, empty]);
      await browser.open(`file://${page}`);
      expect(await browser.evaluate('document.body.innerText')).to.include('The disk is empty.');
      expect(browser.complaints).to.deep.equal([]);
      expect(readFileSync(page).length).to.be.below(64 << 10);
    });
  });
});
