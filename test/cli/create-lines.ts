/** Command lines of `create` for both tools: words with blanks between them, in single quotes where they hold some. */

export const SIZES_AND_OPTIONS = `
  create
  create x
  create x 1M
  create x 1M extra
  create base.raw 9223372036854775296
  create base.raw 9223372036854775807
  create base.raw 9007199254740993
  create -f qcow2 x 9007199254740993
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

export const BACKING_AND_DATA_FILES = `
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

export const LAYOUTS = `
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

export const WORDS = `
  create -f qcow2 -b mid.q -F qcow2 x
  create -f qcow2 -b broken.q -F qcow2 x
  create -f qcow2 -b broken.q -F qcow2 x 1M
  create -f qcow2 -b broken.q -F raw x 1M
  create -f qcow2 -b broken.q x 1M
  create -f qcow2 -b wrong.q -F qcow2 x 1M
  create -f qcow2 -b wrong.q x
  create -f qcow2 -b mid.q x
  create -f qcow2 -b base.q -F vmdk -u x 1M
  create -f qcow2 -b base.q -F file x
  create -f qcow2 -b base.q -F luks -u x 1M
  create -f qcow2 -b 'a b' -F raw -u x 1M
  create -f qcow2 -b a,b -F raw -u x 1M
  create -f qcow2 -b './base.q' -F qcow2 ./x
  create -f qcow2 -b base.q -F qcow2 ./dir/../x
  create -f qcow2 -b ./base.q -F qcow2 ./dir/../x
  create -f qcow2 -b nodir/base.q -F qcow2 x
  create -f qcow2 -b base.q/x -F qcow2 x
  create -f qcow2 small/x 1M
  create -f raw small/x 1M
  create -f qcow2 -o data_file=small/y x 1M
  create -f qcow2 -F raw -o backing_fmt=qcow2 -b base.q x
  create -f qcow2 -o backing_fmt=raw -F qcow2 -b base.q x
  create -f raw -o size=10k,size=20k x
  create -f raw -o size=10k -o preallocation=full x
  create -f qcow2 -u -u -q x 1M
  create -qf qcow2 x 1M
  create -uqf qcow2 x 1M
  create -f qcow2 -f raw x 1M
  create -o preallocation=metadata -f qcow2 -- x 1M
  create -- x 1M
  create -f qcow2 x 1M --
  create -f qcow2 -- -x 1M
  create -f qcow2 -O qcow2 x 1M
  create -f qcow2 --size 1M x
  create --image-opts x 1M
  create -f qcow2 -o cluster_size x 1M
  create -f qcow2 -o compat x 1M
  create -f qcow2 -o nocompat x 1M
  create -f qcow2 -o preallocation x 1M
  create -f qcow2 -o nopreallocation x 1M
  create -f qcow2 -o nocluster_size x 1M
  create -f qcow2 -o extended_l2=on,extended_l2=off x 1M
  create -f qcow2 -o backing_file=base.q -F qcow2 x
  create -f qcow2 -b base.q -o backing_fmt=qcow2 x
  create -f qcow2 -o help=off x 1M
  create -f qcow2 -o nohelp x 1M
  create -f qcow2 -o helpx x 1M
  create -f raw -o ? x
  create -f qcow2 -o cluster_size=4k -o ? x
  create -f qcow2 -o cluster_size=bad,help x
  create -f qcow2 -o help -o , x
  create -f qcow2 -o help -o foo x
  create -f qcow2 -o a,help,b x
  create -f qcow2 -o a=help x 1M
  create -f foo -o help x
  create -f bochs -o help x
  create -f bochs -o help
  create -f raw -o help dir
  create -f raw -o help nodir/x
  measure -O qcow2 broken.q
  measure -O qcow2 wrong.q
  measure -O qcow2 -f raw wrong.q
  measure -O qcow2 mid.q
  measure -O raw mid.q
  measure -O qcow2 ''
  measure -O '' base.q
  measure -O qcow2 -o '' base.q
  measure -O qcow2 -o size base.q
  measure -O qcow2 -o cluster_size=x base.q
  measure -f '' -O qcow2 base.q
  measure -O qcow2 -o help base.q
  measure -O raw -o cluster_size=4k base.q
  measure -O qcow2 --output= base.q
  measure -O qcow2 --image-opts base.q
  measure -O qcow2 --image-opts driver=raw,file.filename=base.q
  measure -O qcow2 --image-opts driver=raw,offset=512,file.filename=base.q
  measure -O qcow2 --image-opts driver=raw,offset=512,size=1M,file.driver=file,file.filename=base.raw
  measure -O raw --image-opts driver=raw,offset=512,size=64k,file.driver=file,file.filename=base.raw
  measure --siz=1M -O qcow2
  measure --out=json --size 1M
  measure -O qcow2 base.q -- base.q
`;

export const OBJECTS = `
  create --object secret,id=s,data=abc -f qcow2 x 1M
  create --object foo,id=s -f qcow2 x 1M
  create --object secret -f qcow2 x 1M
  create --object secret,id=s -f qcow2 x 1M
  create --object '' -f qcow2 x 1M
  create --object secret,id=s,data=abc --object secret,id=s,data=x -f qcow2 x 1M
  create --object secret,id=1s,data=x -f qcow2 x 1M
  create --object secret,id=s,data=x,foo=1 -f qcow2 x 1M
  create --object '{"qom-type":"secret","id":"s","data":"abc"}' -f qcow2 x 1M
  create --object iothread,id=s -f qcow2 x 1M
  create --object secret,id= x 1k
  create --object secret,id=a_b-c.d9,data=x x 1k
  create --object secret,id=9,data=x x 1k
  create --object secret,id=ä,data=x x 1k
  create --object secret,data=x x 1k
  create --object secret,data=x,file=y,id=s x 1k
  create --object secret,file=/nonexistent,id=s x 1k
  create --object secret,data=x,format=base64,id=s x 1k
  create --object secret,data=x,format=foo,id=s x 1k
  create --object qom-type=secret,id=s,data=x x 1k
  create --object throttle-group,id=t x 1k
  create --object tls-creds-anon,id=t x 1k
  create --object main-loop,id=t x 1k
  create --object secret,id=s,data x 1k
  create --object secret,id=s,data=x,id=t x 1k
  create --object iothread,id=9 x 1k
  create --object secret,foo=1 x 1k
  create --object foo x 1k
  create --object secret,id=9,foo=1 x 1k
  create --object secret,id=9,format=x x 1k
  create --object secret x 1k
  create --object secret,file=base.raw,id=s x 1k
  create --object '{"qom-type":"secret","id":"s"}' x 1k
  create --object '{"id":"s"}' x 1k
  create -f qcow2 -b broken.q -F qcow2 x 1M
  create -f qcow2 -b broken.q -F qcow2  x 1M
  create -f qcow2 -b broken.q  x 1M
  create -f qcow2 -b missing -F qcow2 x
  create -f qcow2 -b ./missing -F qcow2 dir/x
`;

export const ENCRYPTION = `
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encryption=on,encrypt.key-secret=s,compat=0.10,preallocation=metadata x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-256 x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s,encrypt.iter-time=1 x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=aes,encrypt.key-secret=t x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=t x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=foo,preallocation=foo x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-mode=gcm x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-alg=foo x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-hash-alg=foo x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.hash-alg=foo x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=des x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=3des x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.cipher-alg=cast5-128 x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1 x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=9223372036854775808 x 1M
  create --object secret,id=s,data=abc -f qcow2 -o encrypt.format=luks,encrypt.key-secret=t,cluster_size=13 x 1M
  create --object secret,id=s,data=/+8=,format=base64 -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s x 1M
  create --object secret,id=s,data=@@,format=base64 -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s x 1M
  create --object secret,id=s,data=YWJj,keyid=k x 1k
  create --object secret,id=k,data=abc --object secret,id=s,data=YWJj,keyid=k x 1k
  create --object secret,id=k,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,format=base64 --object secret,id=s,data=YWJj,keyid=k x 1k
  create --object secret,id=k,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,format=base64 --object secret,id=s,data=YWJj,keyid=k,iv=abc= x 1k
  create --object secret,id=k,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,format=base64 --object secret,id=s,data=kNiltYSQZ0XvXmJ9dVbA4g==,format=base64,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA== x 1k
  map --object secret,id=k,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,format=base64 --object secret,id=s,data=k3nBefZLfyFTjUOuYwSDjg==,format=base64,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA== --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s
  create --object secret,id=k,data=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,format=base64 --object secret,id=s,data=abc,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA== x 1k
  measure --size 1G -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s
  measure --size 1G -O qcow2 -o encrypt.cipher-alg=aes-128
  measure --object secret,id=s,data=abc --size 1G -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1
  convert --object secret,id=s,data=abc -c -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s base.raw x
  convert --object secret,id=s,format=base64,data=YWJjZA -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  convert --object secret,id=s,format=base64,data=YWJjZA= -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  convert --object secret,id=s,format=base64,data=YWJjYQ==YWI= -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  convert --object secret,id=s,format=base64,data=Y=JjYW=j -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  convert --object secret,id=s,format=base64,data=YWJj==== -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  convert --object secret,id=s,format=base64,file=base64 -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s small x
  create --object secret,id=s,format=base64,file=base64-nul x 1k
  create --object secret,id=s,format=base64,data=YWJj_- x 1k
  create --object 'secret,id=s,format=base64,data=YW Jj' x 1k
  convert --object secret,id=s,data=abc -O qcow2 -o encrypt.format=aes,encrypt.key-secret=t base.raw x
  convert --object secret,id=s,data=abc -O qcow2 -o encrypt.format=aes,encrypt.key-secret=s base.raw x
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=t
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.format=luks,encrypt.key-secret=s
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.foo=luks,encrypt.key-secret=s
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=base.q,encrypt.format=luks,encrypt.key-secret=s
  map --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=base.q,encrypt.key-secret=s
  map aes.q
  map --output=json --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s
  info aes.q
  resize aes.q 2M
  resize --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s 2M
  snapshot -l aes.q
  snapshot -c x aes.q
  compare aes.q base.raw
  convert aes.q x
  dd if=aes.q of=x
  rebase -u -b '' aes.q
  commit aes.q
  measure -O raw aes.q
  amend -o compat=0.10 aes.q
  convert --object secret,id=s,data=abc --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s x
  dd --object secret,id=s,data=abc --image-opts if=driver=qcow2,,file.filename=aes.q of=x
`;

export const KEY_SLOT_LINES = `
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=1 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=9 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=-1 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.old-secret=w --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.old-secret=x --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.new-secret=n --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=foo,encrypt.new-secret=n --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=x --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=n,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=8 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=n,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.new-secret=n --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.old-secret=w --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=0,encrypt.iter-time=5 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.iter-time=5 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.format=luks,encrypt.state=inactive --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o compat=0.9,encrypt.state=foo --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o refcount_bits=3,encrypt.state=foo --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o backing_file=x,encrypt.state=foo --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o compat=0.10,encrypt.state=active --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=1,refcount_bits=8 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o size=2M --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=1 --image-opts driver=qcow2,file.filename=two.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=two.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.old-secret=n --image-opts driver=qcow2,file.filename=two.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=1,encrypt.old-secret=n,compat=0.10 --image-opts driver=qcow2,file.filename=two.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=inactive,encrypt.keyslot=1,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=two.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong --force -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong --force -o encrypt.state=inactive,encrypt.keyslot=1 --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong --force -o encrypt.state=inactive,encrypt.old-secret=s --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong --force -o encrypt.state=inactive,encrypt.old-secret=w --image-opts driver=qcow2,file.filename=one.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=s --image-opts driver=qcow2,file.filename=aes.q,encrypt.key-secret=s
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active base.q
  amend --object secret,id=s,data=päss --object secret,id=n,data=new --object secret,id=w,data=wrong -o encrypt.state=active,encrypt.new-secret=n one.q
  info one.q
  info --output=json two.q
`;
