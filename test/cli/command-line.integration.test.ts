/** What becomes of words that are no text, and of output that nobody reads. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { expect } from 'chai';
import { CLI } from '../helpers/mount.js';
import { qemuImg } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

describe('a command line', () => {
  const temp = useTempFolder();
  const shell = (script: string) =>
    spawnSync(
      'bash',
      ['-c', `q() { "${process.execPath}" "${CLI}" "$@"; }; cd "$0"; ${script}`, temp.path],
      {
        encoding: 'utf8',
      },
    );

  it('with bytes that are not UTF-8 is refused: two names could become one', () => {
    const { status, stderr } = shell("q create -f raw $'bak-\\xe9' 1M");
    expect(status).to.equal(1);
    expect(stderr).to.match(/is not UTF-8/);
    expect(readdirSync(temp.path)).to.deep.equal([]);
    expect(shell("q create -q -f raw $'bak-\\xef\\xbf\\xbd' 1M").status).to.equal(0);
    expect(existsSync(temp.at('bak-\ufffd'))).to.equal(true);
  });

  it('does its work though nobody reads what it prints', () => {
    const { stdout } = shell('q create -f qcow2 made 1M | true; echo $PIPESTATUS');
    expect(stdout).to.equal('0\n');
    qemuImg('check', '-q', temp.at('made'));
  });

  it('can name a snapshot by more than fits', () => {
    const { status } = shell(
      'q create -q -f qcow2 disk 1M; q snapshot -c "$(printf "%100000d" 1)" disk',
    );
    expect(status).to.equal(0);
    const { snapshots } = JSON.parse(qemuImg('info', '--output=json', temp.at('disk')));
    expect(snapshots[0].name).to.equal(' '.repeat(255));
  });
});
