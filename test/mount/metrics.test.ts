import { expect } from 'chai';
import { metricsText } from '#src/mount/metrics.js';
import { allocateStatus, type ImageStatus, mountStatus } from '#src/mount/status.js';
import { RequestCounters } from '#src/shared/request-counters.js';
import { parseMetrics } from '../helpers/prometheus.js';

const IMAGE: ImageStatus = {
  ...{ filename: 'a "b\\c\nd', format: 'qcow2', 'read-only': true, 'virtual-size': 4096 },
  ...{ reads: 3, 'read-bytes': 2 ** 52, writes: 0, 'written-bytes': 0 },
  ...{ 'cache-hits': 5, 'cache-misses': 1, flushes: 2, 'flush-seconds': 1e-7 },
  'allocated-bytes': 65536,
};

describe('metricsText()', () => {
  it('is text that Prometheus reads, with any name of a file', () => {
    const facts = allocateStatus(2, new Map([[15, 'READ']]));
    new RequestCounters(facts.requests, 0).count(15, 0.02, false);
    new RequestCounters(facts.requests, 1).count(15, 2e7, true);
    new RequestCounters(facts.requests, 1).count(63, 2, true);
    const images = [IMAGE, { ...IMAGE, filename: '/other' }];
    const samples = parseMetrics(metricsText(mountStatus(facts, images)));
    const value = (name: string, labels: Record<string, string>) =>
      samples.find((one) => {
        return one.name === name && Object.entries(labels).every(([k, v]) => one.labels[k] === v);
      })?.value;
    expect(value('qcow2fs_image_info', { image: 'a "b\\c\nd', mode: 'ro' })).to.equal(1);
    expect(value('qcow2fs_image_read_bytes_total', { image: '/other' })).to.equal(2 ** 52);
    expect(value('qcow2fs_requests_total', { opcode: 'READ' })).to.equal(2);
    expect(value('qcow2fs_request_errors_total', { opcode: 'OPCODE_63' })).to.equal(1);
    const bucket = 'qcow2fs_request_duration_seconds_bucket';
    expect(value(bucket, { opcode: 'READ', le: '0.000032768' })).to.equal(1);
    expect(value('qcow2fs_request_duration_seconds_sum', { opcode: 'OPCODE_63' })).to.equal(0.002);
  });

  it('is whole before anything was served, and of no image', () => {
    const samples = parseMetrics(metricsText(mountStatus(allocateStatus(1, new Map()), [])));
    expect(samples.map(({ name }) => name)).to.include('process_resident_memory_bytes');
  });
});
