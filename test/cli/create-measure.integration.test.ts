/**
 * `create` and `measure`, line by line on QEMU's qemu-img and on ours: what they print, how they end, and
 * the images that they make.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expectSame } from '../helpers/command-lines.js';
import { qemuImg, qemuIo } from '../helpers/qemu.js';
import { useTempFolder } from '../helpers/temp.js';

const SIZES_AND_OPTIONS = `
  create
  create x
  create x 1M
  create x 1M extra
  create -f qcow2
  create -f qcow2 x
  create -f qcow2 x 0
  create -f qcow2 x -1
  create -f qcow2 -- x -1
  create -f qcow2 x +1
  create -f qcow2 x 1.5G
  create -f qcow2 x 0x200
  create -f qcow2 x 0x200k
  create -f qcow2 x 10b
  create -f qcow2 x 10B
  create -f qcow2 x 1k
  create -f qcow2 x 1K
  create -f qcow2 x 1KiB
  create -f qcow2 x 1x
  create -f qcow2 x ''
  create -f qcow2 x ' 1M'
  create -f qcow2 x '1M '
  create -f qcow2 x 1e3
  create -f qcow2 x 1P
  create -f qcow2 x 2P
  create -f qcow2 x 3P
  create -f qcow2 x 7E
  create -f qcow2 x 8E
  create -f qcow2 x 16E
  create -f qcow2 x 9223372036854775808
  create -f qcow2 x 18446744073709551615
  create -f qcow2 x 18446744073709551616
  create -f qcow2 x 1.5
  create -f qcow2 x .5M
  create -f qcow2 x 0.0001k
  create -f qcow2 x 1.k
  create -f qcow2 x 513
  create -f raw x 513
  create -f qcow2 x abc
  create -f qcow2 x 077
  create -f qcow2 x 1T
  create -f foo x 1M
  create -f raw -o help
  create -f foo -o help
  create -o help
  create -f qcow2 -o
  create -f qcow2 -o '' x 1M
  create -f qcow2 -o , x 1M
  create -f qcow2 -o foo x 1M
  create -f qcow2 -o foo=bar x 1M
  create -f qcow2 -o size x 1M
  create -f qcow2 -o size= x 1M
  create -f qcow2 -o size=2M x
  create -f qcow2 -o size=2M x 1M
  create -f qcow2 -o size=2M -o size=3M x
  create -f qcow2 -o size=2M,size=3M x
  create -f qcow2 -o size=1x x
  create -f qcow2 -o size=-1 x
  create -f qcow2 -o size=16E x
  create -f qcow2 -o cluster_size=1k,cluster_size=4k x 1M
  create -f qcow2 -o cluster_size=1k -o cluster_size=4k x 1M
  create -f qcow2 -o cluster_size=1000 x 1M
  create -f qcow2 -o cluster_size=256 x 1M
  create -f qcow2 -o cluster_size=4M x 1M
  create -f qcow2 -o cluster_size=0 x 1M
  create -f qcow2 -o cluster_size=abc x 1M
  create -f qcow2 -o cluster_size=1.5k x 1M
  create -f qcow2 -o cluster_size=0x10000 x 1M
  create -f qcow2 -o compat=0.10 x 1M
  create -f qcow2 -o compat=v2 x 1M
  create -f qcow2 -o compat=v3 x 1M
  create -f qcow2 -o compat=1.1 x 1M
  create -f qcow2 -o compat=2 x 1M
  create -f qcow2 -o compat=V3 x 1M
  create -f qcow2 -o compat= x 1M
  create -f qcow2 -o compat=0.10,lazy_refcounts=on x 1M
  create -f qcow2 -o compat=0.10,lazy_refcounts=off x 1M
  create -f qcow2 -o compat=0.10,refcount_bits=8 x 1M
  create -f qcow2 -o compat=0.10,refcount_bits=16 x 1M
  create -f qcow2 -o compat=0.10,extended_l2=on x 1M
  create -f qcow2 -o compat=0.10,data_file=y x 1M
  create -f qcow2 -o compat=0.10,compression_type=zstd x 1M
  create -f qcow2 -o compat=0.10,compression_type=zlib x 1M
  create -f qcow2 -o compression_type=zstd x 1M
  create -f qcow2 -o compression_type=lz4 x 1M
  create -f qcow2 -o compression_type= x 1M
  create -f qcow2 -o compression_type=ZSTD x 1M
  create -f qcow2 -o refcount_bits=1 x 1M
  create -f qcow2 -o refcount_bits=64 x 1M
  create -f qcow2 -o refcount_bits=128 x 1M
  create -f qcow2 -o refcount_bits=3 x 1M
  create -f qcow2 -o refcount_bits=0 x 1M
  create -f qcow2 -o refcount_bits=-1 x 1M
  create -f qcow2 -o refcount_bits=abc x 1M
  create -f qcow2 -o refcount_bits=16k x 1M
  create -f qcow2 -o refcount_bits=0x10 x 1M
  create -f qcow2 -o refcount_bits= x 1M
  create -f qcow2 -o refcount_bits=010 x 1M
  create -f qcow2 -o lazy_refcounts=on x 1M
  create -f qcow2 -o lazy_refcounts x 1M
  create -f qcow2 -o nolazy_refcounts x 1M
  create -f qcow2 -o lazy_refcounts=yes x 1M
  create -f qcow2 -o lazy_refcounts=true x 1M
  create -f qcow2 -o lazy_refcounts=1 x 1M
  create -f qcow2 -o lazy_refcounts=y x 1M
  create -f qcow2 -o lazy_refcounts=maybe x 1M
  create -f qcow2 -o lazy_refcounts= x 1M
  create -f qcow2 -o LAZY_REFCOUNTS=on x 1M
  create -f qcow2 -o extended_l2=on x 1M
  create -f qcow2 -o extended_l2=on,cluster_size=8k x 1M
  create -f qcow2 -o extended_l2=on,cluster_size=16k x 1M
  create -f qcow2 -o extended_l2=on,preallocation=metadata x 10M
  create -f qcow2 -o preallocation=off x 10M
  create -f qcow2 -o preallocation=metadata x 10M
  create -f qcow2 -o preallocation=falloc x 10M
  create -f qcow2 -o preallocation=full x 10M
  create -f qcow2 -o preallocation=foo x 10M
  create -f qcow2 -o preallocation= x 10M
  create -f qcow2 -o preallocation=OFF x 10M
  create -f raw -o preallocation=off x 10M
  create -f raw -o preallocation=falloc x 10M
  create -f raw -o preallocation=full x 10M
  create -f raw -o preallocation=foo x 10M
  create -f raw -o nocow=on x 10M
  create -f raw -o nocow=off x 10M
  create -f raw -o extent_size_hint=1M x 10M
  create -f raw -o extent_size_hint=0 x 10M
  create -f raw -o extent_size_hint=foo x 10M
  create -f raw -o extent_size_hint=5000 x 10M
  create -f raw -o cluster_size=64k x 10M
  create -f qcow2 -o nocow=on x 10M
  create -f qcow2 -o extent_size_hint=1M x 10M
  create -f qcow2 -o nocow=on,extent_size_hint=4k,preallocation=falloc x 10M
  create -f raw -b base.raw -F raw x
  create -f raw -b base.raw x
  create -f raw -o backing_file=base.raw x
  create -f raw -u -b base.raw x 1M
`;

const BACKING_AND_DATA_FILES = `
  create -f qcow2 -b base.raw x
  create -f qcow2 -b base.raw -F raw x
  create -f qcow2 -b base.q x
  create -f qcow2 -b base.q -F qcow2 x
  create -f qcow2 -b base.q -F raw x
  create -f qcow2 -b base.raw -F qcow2 x
  create -f qcow2 -b base.raw -F raw x 2M
  create -f qcow2 -b base.raw -F raw x 1k
  create -f qcow2 -F raw x 1M
  create -f qcow2 -b '' -F raw x 1M
  create -f qcow2 -b '' x 1M
  create -f qcow2 -b '' x
  create -f qcow2 -o backing_file= x 1M
  create -f qcow2 -o backing_file=base.raw x
  create -f qcow2 -o backing_file=base.raw,backing_fmt=raw x
  create -f qcow2 -o backing_file=base.raw,backing_fmt=foo x
  create -f qcow2 -o backing_file=base.raw,backing_fmt= x
  create -f qcow2 -o backing_fmt=raw x 1M
  create -f qcow2 -o backing_file=a,backing_fmt=raw -b base.raw x
  create -f qcow2 -b a -F raw -b base.raw x
  create -f qcow2 -b a -F foo x
  create -f qcow2 -b missing -F raw x
  create -f qcow2 -b missing -F raw x 1M
  create -f qcow2 -u -b missing -F raw x 1M
  create -f qcow2 -u -b missing -F raw x
  create -f qcow2 -u -b missing x 1M
  create -f qcow2 -u -b missing -F foo x 1M
  create -f qcow2 -u -b base.raw -F raw x
  create -f qcow2 -u x 1M
  create -f qcow2 -b missing x 1M
  create -f qcow2 -b x -F raw x 1M
  create -f qcow2 -b x -F raw ./x 1M
  create -f qcow2 -b base.q -F qcow2 base.q 1M
  create -f qcow2 -b dir -F raw x 1M
  create -f qcow2 -u -b nbd://foo -F raw x 1M
  create -f qcow2 -b foo:bar -F raw x 1M
  create -f qcow2 -u -b foo:bar -F raw x 1M
  create -f qcow2 -b file:base.raw -F raw x
  create -f qcow2 -b base.raw -F raw dir/x
  create -f qcow2 -b ../base.raw -F raw dir/x
  create -f qcow2 -b base.raw -F file x
  create -f qcow2 -b small -F raw x
  create -f qcow2 dir 1M
  create -f raw dir 1M
  create -f qcow2 nodir/x 1M
  create -f qcow2 -o cluster_size=1000 nodir/x 1M
  create -f qcow2 -o compat=foo nodir/x 1M
  create -f qcow2 -o preallocation=foo nodir/x 1M
  create -f qcow2 -o preallocation=foo,compat=foo,compression_type=foo,cluster_size=1,refcount_bits=3 x 1M
  create -f qcow2 -o compat=foo,compression_type=foo,cluster_size=1,refcount_bits=3 x 1M
  create -f qcow2 -o cluster_size=1,refcount_bits=3 x 1M
  create -f qcow2 -o compat=v2,cluster_size=1,refcount_bits=3,lazy_refcounts=on,data_file=y x 1M
  create -f qcow2 -o compat=v2,refcount_bits=3,lazy_refcounts=on,data_file=y,extended_l2=on,compression_type=zstd x 1M
  create -f qcow2 -o compat=v2,refcount_bits=8,lazy_refcounts=on,extended_l2=on,compression_type=zstd x 1M
  create -f qcow2 -o compat=v2,refcount_bits=8,lazy_refcounts=on,compression_type=zstd x 1M
  create -f qcow2 -o compat=v2,refcount_bits=8,compression_type=zstd x 1M
  create -f qcow2 -o compat=v2,preallocation=metadata,compression_type=zstd x 1M
  create -f qcow2 -o preallocation=metadata -b base.raw -F raw x
  create -f qcow2 -o preallocation=falloc -b base.raw -F raw x
  create -f qcow2 -o preallocation=full -b base.raw -F raw x
  create -f qcow2 -o preallocation=metadata,extended_l2=on -b base.raw -F raw x
  create -f qcow2 -o data_file=y x 10M
  create -f qcow2 -o data_file=y,data_file_raw=on x 10M
  create -f qcow2 -o data_file_raw=on x 10M
  create -f qcow2 -o data_file_raw=off x 10M
  create -f qcow2 -o data_file=y,data_file_raw=on -b base.raw -F raw x
  create -f qcow2 -o data_file=y -b base.raw -F raw x
  create -f qcow2 -o data_file=small x 10M
  create -f qcow2 -o data_file=base.raw x 10M
  create -f qcow2 -o data_file=base.q x 10M
  create -f qcow2 -o data_file=dir x 10M
  create -f qcow2 -o data_file=dir/y dir/x 10M
  create -f qcow2 -o data_file=y dir/x 10M
  create -f qcow2 -o data_file=nodir/y x 10M
  create -f qcow2 -o data_file= x 10M
  create -f qcow2 -o data_file=foo:bar x 10M
  create -f qcow2 -o data_file=file:y x 10M
  create -f qcow2 -o data_file=y,preallocation=metadata x 10M
  create -f qcow2 -o data_file=y,preallocation=falloc x 10M
  create -f qcow2 -o data_file=y,preallocation=full x 10M
  create -f qcow2 -o data_file=y,data_file_raw=on,preallocation=off x 10M
  create -f qcow2 -o data_file=y,data_file_raw=on,preallocation=metadata x 10M
  create -f qcow2 -o data_file=y,data_file_raw=on,lazy_refcounts=on,extended_l2=on x 10M
  create -f qcow2 -o data_file=y,cluster_size=1000 x 10M
  create -f qcow2 -o encryption=on x 10M
  create -f qcow2 -o encryption=off x 10M
  create -f qcow2 -o encryption=foo x 10M
  create -f qcow2 -o encrypt.format=luks x 10M
  create -f qcow2 -o encrypt.format=foo x 10M
  create -f qcow2 -o encrypt.key-secret=s x 10M
  create -f qcow2 -o encrypt.cipher-alg=aes-256 x 10M
  create -f qcow2 -o encrypt.iter-time=foo x 10M
  create -f qcow2 -o encrypt.iter-time=10 x 10M
  create -f qcow2 -o encryption=on,encrypt.format=luks x 10M
  create -q -f qcow2 x 1M
  create -q -f qcow2 -b base.raw x
  create -q -f qcow2 -o cluster_size=1000 x 1M
  create -fqcow2 x 1M
  create -f qcow2 x -q 1M
  create --foo x 1M
  create -z x 1M
  create --fo=qcow2 x 1M
  create -f
  create -f file x 1M
  create -f qcow2 file:x 1M
  create -f qcow2 foo:x 1M
  create -f qcow2 'json:{"driver":"qcow2"}' 1M
  create -f qcow2 ./a:b 1M
  create -f qcow2 a/b:c 1M
  create -f qcow2 '' 1M
  create -f qcow2 'a,b' 1M
  create -f qcow2 'a b' 1M
  create -f qcow2 -b 'base.raw' -F raw -o cluster_size=4k 'a\\b' 
  create -f qcow2 -o help x 1M
  create -f qcow2 -o cluster_size=1k,help x 1M
  create -f qcow2 -o cluster_size=1k,? x 1M
  create -f qcow2 -o help=on x 1M
  create -f raw -o help foo:x
  create -f qcow2 -o help -o cluster_size=1k
  create -f qcow2 -o cluster_size=1k -o help x
  create -f bochs x 1M
  create -f http x 1M
  create -f blkdebug x 1M
  create -f quorum x 1M
  create -f null-co x 1M
  create -f vvfat x 1M
  create -f '' x 1M
  create -f QCOW2 x 1M
  create -f qcow2 -o backing_file=a,,b,backing_fmt=raw -u x 1M
  create -f qcow2 -o 'backing_file=base.raw,backing_fmt=raw,cluster_size=512' x
  create -f qcow2 -o 'backing_file=base.raw ,backing_fmt=raw' x
  create -f qcow2 -o ' cluster_size=4k' x 1M
  create -f qcow2 -o 'cluster_size=4k,' x 1M
  create -f qcow2 -o ',cluster_size=4k' x 1M
  create -f qcow2 -o 'cluster_size=4k,,lazy_refcounts=on' x 1M
  create -f qcow2 -o 'cluster_size=4k' -o ',foo' x 1M
  create -f qcow2 -o '=4k' x 1M
  create -f qcow2 -b base.raw -F raw -o cluster_size=2M x
  create -f qcow2 -b base.q -F qcow2 -o compat=0.10,cluster_size=512 x
`;

/** Longer than the format allows. */
const LONG_NAME = 'a'.repeat(1024);

const LAYOUTS = `
  create -f qcow2 -o cluster_size=512 x 1G
  create -f qcow2 -o cluster_size=512,refcount_bits=64 x 1G
  create -f qcow2 -o cluster_size=512 x 100G
  create -f qcow2 -o cluster_size=2M x 1T
  create -f qcow2 -o cluster_size=4k x 1M
  create -f qcow2 -o cluster_size=8k x 1M
  create -f qcow2 -o refcount_bits=2 x 1M
  create -f qcow2 -o refcount_bits=4 x 1M
  create -f qcow2 -o refcount_bits=8 x 1M
  create -f qcow2 -o refcount_bits=32 x 1M
  create -f qcow2 -o preallocation=metadata,cluster_size=512 x 7M
  create -f qcow2 -o preallocation=metadata,cluster_size=512 x 20M
  create -f qcow2 -o preallocation=metadata,cluster_size=512,refcount_bits=64 x 1M
  create -f qcow2 -o preallocation=metadata,cluster_size=512,refcount_bits=64 x 5M
  create -f qcow2 -o preallocation=metadata,cluster_size=512,refcount_bits=1 x 5M
  create -f qcow2 -o preallocation=metadata,compat=0.10,cluster_size=1k x 5M
  create -f qcow2 -o preallocation=metadata,extended_l2=on,cluster_size=16k x 100M
  create -f qcow2 -o preallocation=metadata x 70001
  create -f qcow2 -o preallocation=metadata x 0
  create -f qcow2 -o preallocation=falloc x 0
  create -f qcow2 -o preallocation=falloc x 70001
  create -f qcow2 -o preallocation=falloc,cluster_size=512 x 7M
  create -f qcow2 -o preallocation=falloc,cluster_size=512 x 20M
  create -f qcow2 -o preallocation=falloc,cluster_size=512,refcount_bits=64 x 5M
  create -f qcow2 -o preallocation=falloc,extended_l2=on,cluster_size=16k x 10M
  create -f qcow2 -o preallocation=full,cluster_size=1k,refcount_bits=4 x 3M
  create -f qcow2 -o preallocation=metadata x 5G
  create -f qcow2 -o preallocation=metadata,cluster_size=4k x 200M
  create -f qcow2 -o data_file=y,data_file_raw=on,extended_l2=on x 3M
  create -f qcow2 -o data_file=y,preallocation=metadata,cluster_size=512 x 1M
  create -f qcow2 -o data_file=y,preallocation=falloc,cluster_size=512 x 1M
  create -f raw -o preallocation=full x 70001
  create -f raw -o preallocation=falloc x 70001
  create -f raw -o preallocation=falloc x 0
  create -f raw x 0
  create -f raw x 1T
  create -f raw -o nocow x 1M
  create -f raw -o nosize x 1M
  create -f qcow2 -o nofoo x 1M
  create -f qcow2 -o refcount_bits=99999999999999999999 x 1M
  create -f qcow2 -o refcount_bits=18446744073709551615 x 1M
  create -f qcow2 -o 'refcount_bits= 8' x 1M
  create -f qcow2 -o cluster_size=9E x 1M
  create -f qcow2 -b ${LONG_NAME} -F raw -u x 1M
  create -f qcow2 -o cluster_size=512 -b ${LONG_NAME} -F raw -u x 1M
  create -f qcow2 -o cluster_size=1k -b ${LONG_NAME} -F raw -u x 1M
  create -f raw base.raw 10k
  create -f raw small 10k
  create -f qcow2 small 10k
  create -f qcow2 base.q 10k
  create -f qcow2 base.raw 10k
  create -f qcow2 -b base.q -F qcow2 small
  create -f raw -F raw x 1M
  create -f file x 10k
  create -f qcow2 -F qcow2 -b base.q -o cluster_size=4k,compat=v3,lazy_refcounts=on,refcount_bits=8,compression_type=zstd x 5M
`;

const MEASURE_SIZES = `
  measure
  measure --size 1G
  measure --size 1G -O qcow2
  measure --size 1G -O raw
  measure --size 1G -O qcow2 --output json
  measure --size 1G -O qcow2 --output=human
  measure --size 1G -O qcow2 --output=foo
  measure --size 1G base.raw
  measure --size 1G -f raw
  measure --size 1G -l foo
  measure --size 1G -U
  measure --size 1G --image-opts
  measure --size 1x
  measure --size -1
  measure --size=16E
  measure --size 8E
  measure --size 7E -O qcow2
  measure --size 7E
  measure --size 3P -O qcow2
  measure --size 0 -O qcow2
  measure --size 1 -O qcow2
  measure --size 1 -O raw
  measure --size 513 -O raw
  measure --size 1G -O foo
  measure --size 1G -O qcow
  measure --size 1G -O qed
  measure --size 1G -O vmdk
  measure --size 1G -O vdi
  measure --size 1G -O vpc
  measure --size 1G -O vhdx
  measure --size 1G -O file
  measure --size 1G -O nbd
  measure --size 1G -O bochs
  measure --size 1G -O parallels
  measure --size 1G -O qcow2 -o help
  measure --size 1G -O qcow2 -o cluster_size=1k
  measure --size 1G -O qcow2 -o cluster_size=1k -o refcount_bits=1
  measure --size 1G -O qcow2 -o cluster_size=1000
  measure --size 1G -O qcow2 -o refcount_bits=3
  measure --size 1G -O qcow2 -o refcount_bits=8,compat=0.10
  measure --size 1G -O qcow2 -o extended_l2=on,compat=0.10
  measure --size 1G -O qcow2 -o extended_l2=on
  measure --size 1G -O qcow2 -o extended_l2=on,cluster_size=4k
  measure --size 1G -O qcow2 -o preallocation=metadata
  measure --size 1G -O qcow2 -o preallocation=falloc
  measure --size 1G -O qcow2 -o preallocation=full
  measure --size 1G -O qcow2 -o preallocation=foo
  measure --size 1G -O qcow2 -o data_file=x
  measure --size 1G -O qcow2 -o data_file=x,data_file_raw=on
  measure --size 1G -O qcow2 -o data_file_raw=on
  measure --size 1G -O qcow2 -o backing_file=x
  measure --size 1G -O qcow2 -o backing_file=x,backing_fmt=raw
  measure --size 1G -O qcow2 -o backing_file=base.raw,backing_fmt=raw
  measure --size 1G -O qcow2 -o backing_fmt=raw
  measure --size 1G -O qcow2 -o backing_file=x,preallocation=metadata
  measure --size 1G -O qcow2 -o compat=foo
  measure --size 1G -O qcow2 -o compat=v2
  measure --size 1G -O qcow2 -o compat=0.10,lazy_refcounts=on
  measure --size 1G -O qcow2 -o lazy_refcounts=on
  measure --size 1G -O qcow2 -o compression_type=foo
  measure --size 1G -O qcow2 -o compression_type=zstd
  measure --size 1G -O qcow2 -o compression_type=zstd,compat=v2
  measure --size 1G -O qcow2 -o size=2G
  measure --size 1G -O qcow2 -o foo=bar
  measure --size 1G -O qcow2 -o foo
  measure --size 1G -O qcow2 -o ,
  measure --size 1G -O qcow2 -o nocow=on
  measure --size 1G -O raw -o nocow=on
  measure --size 1G -O raw -o preallocation=full
  measure --size 1G -O raw -o size=2G
  measure --size 1G -O qcow2 -o encryption=on
  measure --size 1G -O qcow2 -o encrypt.format=luks
  measure --size 1G -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s --object secret,id=s,data=abc
  measure --size 1G -O qcow2 -o encrypt.format=foo
  measure base.raw
  measure -f raw base.raw
  measure -f qcow2 base.raw
  measure -f foo base.raw
  measure -f raw base.raw extra
  measure base.q
  measure -O qcow2 base.q
  measure -O qcow2 base.raw
  measure -O raw base.q
  measure -O qcow2 small
  measure -O raw small
  measure -O qcow2 -o size=1M base.q
  measure -O qcow2 -l foo base.q
  measure -O qcow2 -l foo base.raw
  measure -O qcow2 -l snapshot.name=foo base.q
  measure -O qcow2 -l snapshot.foo=foo base.q
  measure -O qcow2 -U base.q
  measure -O qcow2 -U --image-opts driver=qcow2,file.filename=base.q
  measure -O qcow2 --image-opts driver=qcow2,file.filename=base.q
  measure -O qcow2 --image-opts -f qcow2 base.q
  measure -O qcow2 missing
  measure -O qcow2 dir
  measure -O qcow2 foo:bar
  measure -O qcow2 file:base.q
  measure --output=json -O qcow2 base.q
  measure --output=json -O raw base.raw
  measure -O qcow2 -o backing_file=base.raw,backing_fmt=raw base.q
  measure -O qcow2 --object secret,id=s base.q
`;

const MEASURE_IMAGES = `
  measure -O qcow2 full.q
  measure -O qcow2 -o cluster_size=512 full.q
  measure -O qcow2 -o cluster_size=4k full.q
  measure -O qcow2 -o cluster_size=2M full.q
  measure -O qcow2 -o compat=0.10 full.q
  measure -O qcow2 -o extended_l2=on full.q
  measure -O qcow2 -o refcount_bits=64,cluster_size=1k full.q
  measure -O qcow2 -o preallocation=full full.q
  measure -O qcow2 -o preallocation=metadata full.q
  measure -O qcow2 -o backing_file=x full.q
  measure -O qcow2 -o backing_file= full.q
  measure -O raw full.q
  measure -O qcow2 -l s1 full.q
  measure -O qcow2 -l 1 full.q
  measure -O raw -l small full.q
  measure -O qcow2 -l snapshot.id=1 full.q
  measure -O qcow2 -l snapshot.id=1,snapshot.name=small full.q
  measure -O qcow2 -l snapshot.id=2,snapshot.name=small full.q
  measure -O qcow2 -l snapshot.name=1 full.q
  measure -O qcow2 -l '' full.q
  measure -O qcow2 -l foo=bar full.q
  measure -O qcow2 over.q
  measure -O qcow2 -o cluster_size=4k over.q
  measure -O qcow2 -o cluster_size=2M over.q
  measure -O qcow2 v2.q
  measure -O qcow2 -o compat=0.10 v2.q
  measure -O qcow2 -o cluster_size=4k v2.q
  measure -O qcow2 packed.q
  measure -O qcow2 -o cluster_size=4k packed.q
  measure -O qcow2 sub.q
  measure -O qcow2 -o cluster_size=1k sub.q
  measure -O qcow2 prealloc.q
  measure -O qcow2 -o cluster_size=1k prealloc.q
  measure -O qcow2 sparse.raw
  measure -O qcow2 -f raw sparse.raw
  measure -O qcow2 -o cluster_size=4k sparse.raw
  measure -O qcow2 -o cluster_size=512 sparse.raw
  measure -O qcow2 -o cluster_size=2M sparse.raw
  measure -O qcow2 -f raw full.q
  measure -O foo missing
  measure -O qcow2 -o foo missing
  measure -O qcow2 -o cluster_size=1,preallocation=foo,refcount_bits=3 full.q
  measure -O qcow2 -o preallocation=foo,refcount_bits=3 full.q
  measure -O qcow2 -o extended_l2=on,cluster_size=4k,refcount_bits=3 full.q
  measure -O qcow2 -o compat=foo,refcount_bits=3 full.q
  measure -O qcow2 -o compat=foo,cluster_size=3 full.q
  measure -O qcow2 -o compat=foo,extended_l2=on,cluster_size=1k full.q
  measure -O host_device full.q
  measure --size 1 --size 2M
  measure --output=json -O qcow2 full.q
  measure --output json -O qcow2 over.q
  measure --size 10M -U full.q
  measure --size 1T -O qcow2
  measure --size 1T -O qcow2 -o cluster_size=4k,refcount_bits=64
  measure --size 1T -O qcow2 -o cluster_size=2M,refcount_bits=1
  measure --size 2P -O qcow2
  measure --size 70001 -O qcow2 -o extended_l2=on,cluster_size=16k
`;

describe('create, measure by the words of qemu-img', () => {
  const temp = useTempFolder();
  let template = '';

  beforeEach(() => {
    template = temp.at('template');
    mkdirSync(join(template, 'dir'), { recursive: true });
    qemuImg('create', '-q', '-f', 'raw', join(template, 'base.raw'), '1M');
    qemuImg('create', '-q', '-f', 'qcow2', join(template, 'base.q'), '3M');
    writeFileSync(join(template, 'small'), 'hello\n');
  });

  const same = (lines: string) => expectSame(lines, template, temp.at('runs'));

  it('create: sizes and options', () => same(SIZES_AND_OPTIONS));
  it('create: backing files, data files, names, help', () => same(BACKING_AND_DATA_FILES));
  it('create: layouts, targets that are there', () => same(LAYOUTS));
  it('measure: sizes and options', () => expectSame(MEASURE_SIZES, template));

  it('measure: images', async () => {
    makeImages(template);
    await expectSame(MEASURE_IMAGES, template);
  });
});

/** Images with all kinds of clusters. */
function makeImages(folder: string): void {
  const at = (name: string) => join(folder, name);
  const make = (name: string, options: string, ...words: string[]) =>
    qemuImg(
      'create',
      '-q',
      '-f',
      'qcow2',
      '-o',
      options,
      ...words.slice(0, -1),
      at(name),
      words.at(-1)!,
    );
  make('full.q', 'cluster_size=64k', '10M');
  qemuIo(at('full.q'), 'write 0 1M', 'write -z 2M 1M', 'write 5000k 4k');
  qemuImg('snapshot', '-c', 's1', at('full.q'));
  qemuImg('resize', '-q', '--shrink', at('full.q'), '8M');
  qemuImg('snapshot', '-c', 'small', at('full.q'));
  qemuImg('resize', '-q', at('full.q'), '12M');
  qemuIo(at('full.q'), 'write 11M 300k', 'discard 0 128k');
  qemuImg('bitmap', '--add', at('full.q'), 'one');
  qemuImg('bitmap', '--add', '-g', '512', '--disable', at('full.q'), 'another-name');
  make('over.q', 'cluster_size=4k', '-b', 'full.q', '-F', 'qcow2', '13M');
  qemuIo(at('over.q'), 'write 3M 10k', 'write -z 64k 64k', 'write 12700k 100k');
  make('v2.q', 'compat=0.10,cluster_size=1k', '-b', 'base.raw', '-F', 'raw', '3M');
  qemuIo(at('v2.q'), 'write 100k 3k', 'write 2M 1k');
  make('packed.q', 'cluster_size=64k', '4M');
  qemuIo(at('packed.q'), 'write -c 0 128k', 'write -c 1M 64k', 'write 3M 64k');
  make('sub.q', 'extended_l2=on,cluster_size=64k', '4M');
  qemuIo(at('sub.q'), 'write 2k 2k', 'write 70k 10k', 'write -z 1M 6k');
  make('prealloc.q', 'preallocation=metadata', '20M');
  qemuIo(at('prealloc.q'), 'write 1M 100k', 'write 9M 1k');
  qemuImg('create', '-q', '-f', 'raw', at('sparse.raw'), '10M');
  qemuIo(at('sparse.raw'), 'write 1M 100k', 'write 5M 4k', 'write 9999k 1k');
}
