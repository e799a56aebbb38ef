/** Medians, ratios and marks from the samples of all rounds: the table, and the JSON record. */
import { OURS } from './peers.js';
import { type Target, type Unit, unitOf } from './workloads.js';

/** One number of one round; the p99 latency where fio took it. */
export interface Sample {
  metric: string;
  peer: string;
  /** From 0. */
  round: number;
  /** In the metric's unit. */
  value: number;
  latencyP99Us?: number;
}

/** A peer that takes no part in a metric's workload, or in any. */
export interface Skip {
  peer: string;
  /** Name of the workload, or 'all'. */
  workload: string;
  reason: string;
}

export interface Verdict {
  metric: string;
  against: string;
  /** The ratio of the medians, or the median itself; undefined where one side was not measured. */
  measured: number | undefined;
  bound: string;
  mark: 'ok' | 'SHORT' | '-';
}

export interface Summary {
  metric: string;
  unit: Unit;
  peer: string;
  median: number;
  min: number;
  max: number;
}

export function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length % 2 === 1) return sorted[middle]!;
  return (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** One summary for each metric and peer that was measured, in the order of the first samples. */
export function summarize(samples: Sample[]): Summary[] {
  const groups = new Map<string, Sample[]>();
  for (const sample of samples) {
    const key = `${sample.metric} ${sample.peer}`;
    const group = groups.get(key);
    if (group) group.push(sample);
    else groups.set(key, [sample]);
  }
  return [...groups.values()].map((group) => {
    const { metric, peer } = group[0]!;
    const values = group.map(({ value }) => value);
    return {
      metric,
      unit: unitOf(metric),
      peer,
      median: median(values),
      min: Math.min(...values),
      max: Math.max(...values),
    };
  });
}

function judge(target: Target, summaries: Summary[]): Verdict {
  const find = (metric: string, peer: string): number | undefined =>
    summaries.find((summary) => summary.metric === metric && summary.peer === peer)?.median;
  const own = find(target.metric, OURS);
  const isRatio = target.peer !== undefined || target.ownMetric !== undefined;
  const other = isRatio ? find(target.ownMetric ?? target.metric, target.peer ?? OURS) : 1;
  const measured = own === undefined || other === undefined ? undefined : own / other;
  const isMet =
    measured !== undefined &&
    measured >= (target.atLeast ?? 0) &&
    measured <= (target.atMost ?? Number.POSITIVE_INFINITY);
  const sign = target.atLeast === undefined ? '<=' : '>=';
  const limit = (target.atLeast ?? target.atMost ?? 0).toString();
  return {
    metric: target.metric,
    against: target.peer ?? target.ownMetric ?? '',
    measured,
    bound: `${sign} ${limit}${isRatio ? ' x' : ` ${unitOf(target.metric)}`}`,
    mark: measured === undefined ? '-' : isMet ? 'ok' : 'SHORT',
  };
}

/** The targets of the metrics that were measured for any peer. */
export function judgeAll(targets: Target[], summaries: Summary[]): Verdict[] {
  const measured = new Set(summaries.map(({ metric }) => metric));
  return targets
    .filter(({ metric }) => measured.has(metric))
    .map((target) => judge(target, summaries));
}

function formatValue(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** Aligns the cells: text to the left, columns in `rightFrom` and after to the right. */
function formatTable(rows: string[][], rightFrom: number): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column < rightFrom ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      )
      .join('  ')
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => '-'.repeat(width)).join('  '));
  return lines.join('\n');
}

function formatMedians(summaries: Summary[], peerNames: string[]): string {
  const metrics = [...new Set(summaries.map(({ metric }) => metric))];
  const rows = metrics.map((metric) => [
    metric,
    unitOf(metric),
    ...peerNames.map((peer) => {
      const found = summaries.find((entry) => entry.metric === metric && entry.peer === peer);
      return found ? formatValue(found.median) : '';
    }),
  ]);
  return formatTable([['median of rounds', 'unit', ...peerNames], ...rows], 2);
}

function formatVerdicts(verdicts: Verdict[]): string {
  const rows = verdicts.map(({ metric, against, measured, bound, mark }) => [
    metric,
    against,
    bound,
    mark,
    measured === undefined ? 'not measured' : formatValue(measured),
  ]);
  return formatTable([[`target of ${OURS}`, 'against', 'bound', 'mark', 'measured'], ...rows], 4);
}

/** One line for each peer and reason, with the workloads that it holds for. */
export function formatSkips(skips: Skip[]): string {
  const workloadsOf = new Map<string, Set<string>>();
  for (const { peer, workload, reason } of skips) {
    const key = `${peer}: ${reason}`;
    workloadsOf.set(key, (workloadsOf.get(key) ?? new Set()).add(workload));
  }
  return [...workloadsOf].map(([key, names]) => `  ${key} (${[...names].join(', ')})`).join('\n');
}

/** The whole report as text: medians by peer, targets, and who was left out and why. */
export function formatReport(
  summaries: Summary[],
  verdicts: Verdict[],
  skips: Skip[],
  peerNames: string[],
): string {
  const measuredNames = peerNames.filter((name) => summaries.some(({ peer }) => peer === name));
  const sections = [formatMedians(summaries, measuredNames)];
  if (verdicts.length > 0) sections.push(formatVerdicts(verdicts));
  if (skips.length > 0) {
    sections.push(`skipped:\n${formatSkips(skips)}`);
  }
  return sections.join('\n\n');
}
