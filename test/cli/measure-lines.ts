/** Command lines of `measure` for both tools: words with blanks between them, in single quotes where they hold some. */

export const MEASURE_SIZES = `
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

export const MEASURE_IMAGES = `
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

export const NOTATIONS = `
  measure --size '1.5k' -O qcow2
  measure --size '1.55k' -O qcow2
  measure --size '0.5' -O qcow2
  measure --size '1.' -O qcow2
  measure --size '1.0' -O qcow2
  measure --size '1.0b' -O qcow2
  measure --size '1.9b' -O qcow2
  measure --size '0x10' -O qcow2
  measure --size '0X10' -O qcow2
  measure --size '0x' -O qcow2
  measure --size '0x1.8' -O qcow2
  measure --size '1e2k' -O qcow2
  measure --size '1E' -O qcow2
  measure --size '2E' -O qcow2
  measure --size '.5k' -O qcow2
  measure --size '1..5k' -O qcow2
  measure --size '1,5k' -O qcow2
  measure --size '1k1' -O qcow2
  measure --size '1kk' -O qcow2
  measure --size '-0' -O qcow2
  measure --size '+0' -O qcow2
  measure --size '--1' -O qcow2
  measure --size '1M ' -O qcow2
  measure --size ' 1M' -O qcow2
  measure --size '	1M' -O qcow2
  measure --size '1_000' -O qcow2
  measure --size '٣' -O qcow2
  measure --size '1T' -O qcow2
  measure --size '1t' -O qcow2
  measure --size '1g' -O qcow2
  measure --size '1p' -O qcow2
  measure --size '3.999k' -O qcow2
  measure --size '1.0001k' -O qcow2
  measure --size '0.1k' -O qcow2
  measure --size '0.0009765625k' -O qcow2
  measure --size '1.999999999999k' -O qcow2
  measure --size '00010' -O qcow2
  measure --size '08' -O qcow2
  measure --size '0b1' -O qcow2
  measure --size '1b' -O qcow2
  measure --size '1B' -O qcow2
  measure --size '5Z' -O qcow2
  measure --size 'inf' -O qcow2
  measure --size 'nan' -O qcow2
  measure --size '1.5e3' -O qcow2
  measure --size '0x1e' -O qcow2
  measure --size '0x1g' -O qcow2
  measure --size '1K5' -O qcow2
  measure --size '100%' -O qcow2
  measure --size '0xffffffffffffffff' -O qcow2
  measure --size '9007199254740993' -O qcow2
  measure --size '1.1E' -O qcow2
  measure --size '7.9E' -O qcow2
  measure --size '9007199254740993' -O raw
  measure --size '9007199254740993' -O qcow2 -o cluster_size=2M
  measure --size '' -O qcow2
`;
