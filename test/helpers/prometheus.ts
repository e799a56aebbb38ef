/** Reads the text format of Prometheus, as strictly as `promtool check metrics`. */
import { expect } from 'chai';

const NAME = /^[a-z_:][a-z0-9_:]*$/;
const SAMPLE = /^([a-z0-9_:]+)(\{.*\})? (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** All samples; fails where the text breaks a rule. */
export function parseMetrics(text: string): Sample[] {
  expect(text.endsWith('\n'), 'ends with a line').to.equal(true);
  const samples: Sample[] = [];
  const families = new Set<string>();
  let family = '';
  let type = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const [, kind, name, rest] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (kind === 'HELP') {
      expect(families.has(name!), `${name} once`).to.equal(false);
      expect(name).to.match(NAME);
      families.add(name!);
      family = name!;
    } else if (kind === 'TYPE') {
      expect(name).to.equal(family);
      expect(rest).to.be.oneOf(['counter', 'gauge', 'histogram']);
      type = rest!;
      expect(family.endsWith('_total'), line).to.equal(type === 'counter');
    } else samples.push(parseSample(line, family, type));
  }
  expectHistograms(samples);
  return samples;
}

function parseSample(line: string, family: string, type: string): Sample {
  const [, name, labelText = '', value] = SAMPLE.exec(line) ?? expect.fail(`no sample: ${line}`);
  const suffixes = type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
  expect(name, line).to.be.oneOf(suffixes.map((suffix) => family + suffix));
  const labels: Record<string, string> = {};
  const inside = labelText.slice(1, -1);
  for (LABEL.lastIndex = 0; LABEL.lastIndex < inside.length; ) {
    const [, label, text] = LABEL.exec(inside) ?? expect.fail(`labels: ${line}`);
    labels[label!] = text!.replace(/\\(.)/g, (_, one: string) => (one === 'n' ? '\n' : one));
  }
  expect(Number(value), line).to.be.at.least(0);
  return { name: name!, labels, value: Number(value) };
}

/** Buckets grow, and the last one is `+Inf` and the count. */
function expectHistograms(samples: readonly Sample[]): void {
  for (const { name, labels, value } of samples) {
    if (!name.endsWith('_count')) continue;
    const base = name.slice(0, -'_count'.length);
    const buckets = samples.filter((sample) => {
      return sample.name === `${base}_bucket` && sample.labels.opcode === labels.opcode;
    });
    expect(buckets.at(-1)).to.deep.include({ value, labels: { ...labels, le: '+Inf' } });
    const limits = buckets.map((sample) => Number(sample.labels.le!.replace('+Inf', 'Infinity')));
    const rising = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b);
    expect(limits).to.deep.equal(rising([...new Set(limits)]));
    const counts = buckets.map((sample) => sample.value);
    expect(counts).to.deep.equal(rising(counts));
  }
}
