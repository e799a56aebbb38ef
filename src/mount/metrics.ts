/** `MNT/.qcow2fs/metrics`: the status of a mount in the text format that Prometheus reads, version 0.0.4. */
import type { ImageStatus, MountStatus } from './status.js';

type Labels = Readonly<Record<string, string>>;
interface Sample {
  readonly labels?: Labels;
  readonly value: number;
  /** What is put behind the metric's name. */
  readonly suffix?: '_bucket' | '_sum' | '_count';
}

/** What of an image's status is told as a metric. */
const OF_IMAGES: readonly {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  readonly value: (image: ImageStatus) => number;
}[] = [
  {
    ...{ name: 'virtual_size_bytes', type: 'gauge', help: 'Size of the disk.' },
    value: (image) => image['virtual-size'],
  },
  {
    ...{ name: 'reads_total', type: 'counter', help: 'Requests that read from the image.' },
    value: ({ reads }) => reads,
  },
  {
    ...{ name: 'read_bytes_total', type: 'counter', help: 'Bytes that were read.' },
    value: (image) => image['read-bytes'],
  },
  {
    ...{ name: 'writes_total', type: 'counter', help: 'Requests that wrote to the image.' },
    value: ({ writes }) => writes,
  },
  {
    ...{ name: 'written_bytes_total', type: 'counter', help: 'Bytes that were written.' },
    value: (image) => image['written-bytes'],
  },
  {
    ...{ name: 'cache_hits_total', type: 'counter' },
    help: 'Parts of tables that were found in the metadata cache.',
    value: (image) => image['cache-hits'],
  },
  {
    ...{ name: 'cache_misses_total', type: 'counter' },
    help: 'Parts of tables that had to be read.',
    value: (image) => image['cache-misses'],
  },
  {
    ...{ name: 'flushes_total', type: 'counter', help: "Flushes of the image's files." },
    value: ({ flushes }) => flushes,
  },
  {
    ...{ name: 'flush_seconds_total', type: 'counter', help: 'Time that flushes took.' },
    value: (image) => image['flush-seconds'],
  },
  {
    ...{ name: 'allocated_bytes_total', type: 'counter' },
    help: 'Space that was allocated in the image.',
    value: (image) => image['allocated-bytes'],
  },
];

export function metricsText(status: MountStatus): string {
  const lines: string[] = [];
  const put = (name: string, type: string, help: string, samples: readonly Sample[]): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
    for (const { suffix = '', labels, value } of samples) {
      lines.push(`${name}${suffix}${labels === undefined ? '' : labelText(labels)} ${value}`);
    }
  };
  const { images } = status;
  put(
    ...(['qcow2fs_image_info', 'gauge', 'An image that is mounted; always 1.'] as const),
    images.map(({ filename: image, format, ...rest }) => {
      return { labels: { image, format, mode: rest['read-only'] ? 'ro' : 'rw' }, value: 1 };
    }),
  );
  for (const { name, type, help, value } of OF_IMAGES) {
    const samples = images.map((image) => {
      return { labels: { image: image.filename }, value: value(image) };
    });
    put(`qcow2fs_image_${name}`, type, help, samples);
  }
  putRequests(put, status);
  put('qcow2fs_workers', 'gauge', 'Threads that serve requests.', [{ value: status.workers }]);
  put('process_start_time_seconds', 'gauge', 'When the mount began, in seconds since 1970.', [
    { value: status.since },
  ]);
  put('process_cpu_seconds_total', 'counter', "The processor's time that was used.", [
    { value: status['cpu-seconds'] },
  ]);
  put('process_resident_memory_bytes', 'gauge', 'What the process has in memory.', [
    { value: status['resident-bytes'] },
  ]);
  return `${lines.join('\n')}\n`;
}

function putRequests(
  put: (name: string, type: string, help: string, samples: readonly Sample[]) => void,
  status: MountStatus,
): void {
  const kinds = Object.entries(status.requests);
  put(
    ...(['qcow2fs_requests_total', 'counter', 'Requests of the kernel, by opcode.'] as const),
    kinds.map(([opcode, { count }]) => ({ labels: { opcode }, value: count })),
  );
  put(
    ...([
      'qcow2fs_request_errors_total',
      'counter',
      'Those that were answered by an error.',
    ] as const),
    kinds.map(([opcode, { errors }]) => ({ labels: { opcode }, value: errors })),
  );
  const limits = status['bucket-seconds'];
  const samples = kinds.flatMap(([opcode, { count, seconds, buckets }]): Sample[] => {
    let below = 0;
    const counts = buckets.map((inBucket, bucket): Sample => {
      below += inBucket;
      const le = limits[bucket];
      const labels = { opcode, le: le === null ? '+Inf' : String(le) };
      return { suffix: '_bucket', labels, value: below };
    });
    return [
      ...counts,
      { suffix: '_sum', labels: { opcode }, value: seconds },
      { suffix: '_count', labels: { opcode }, value: count },
    ];
  });
  put(
    'qcow2fs_request_duration_seconds',
    ...(['histogram', 'From reading a request to its reply.', samples] as const),
  );
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return `{${pairs.join(',')}}`;
}

/** As the format wants it in values of labels; a file's name can have all of these. */
function escaped(value: string): string {
  return value.replace(/[\\"\n]/g, (character) => (character === '\n' ? '\\n' : `\\${character}`));
}
