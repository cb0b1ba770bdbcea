/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Requests of the block class: what guests ask for, rightly and wrongly, on memory and on files. */

#include <fcntl.h>
#include <sys/stat.h>

#include "blk_harness.h"
#include "endpoint_link.h"

#define SIZE	(UINT64_C(8) << 20)
#define SECTORS (SIZE / SECTOR)

static uint8_t data[1 << 16], back[1 << 16];
static char path[64];

static const char *
file_make(const char *dir, uint64_t size)
{
	int fd;

	if (path[0] != '\0')
		unlink(path);
	snprintf(path, sizeof(path), "%s/vfn-blk-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
	return path;
}

static int
teardown(void **state)
{
	disks_close(state);
	if (path[0] != '\0')
		unlink(path);
	path[0] = '\0';
	return 0;
}

/* What is written is read, wherever it lies and whatever the chains look like. */
static void
read_what_was_written(const struct disk_conf *conf)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} at[] = {{0, 512}, {1, 512}, {7, 4096}, {100, 65536}, {SECTORS - 1, 512},
		{SECTORS - 128, 65536}, {4095, 1536}};
	struct guest *g = disk_open(conf);
	unsigned int i, layout;
	uint32_t number = 1;

	for (layout = 0; layout < LAYOUTS; layout++) {
		for (i = 0; i < DIM(at); i++) {
			struct ask ask = {.type = VIRTIO_BLK_T_OUT,
				.sector = at[i].sector,
				.out = data,
				.out_len = at[i].len,
				.layout = layout};
			struct answer answer;

			pattern(data, at[i].sector, at[i].len, ++number);
			answer = ask_wait(g, 0, &ask);
			assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
			assert_int_equal(answer.used_len, 1);
			ask = (struct ask){.type = VIRTIO_BLK_T_IN,
				.sector = at[i].sector,
				.in_len = at[i].len,
				.layout = layout};
			answer = ask_wait(g, 0, &ask);
			assert_int_equal(answer.status, VIRTIO_BLK_S_OK);
			assert_int_equal(answer.used_len, at[i].len + 1);
			assert_memory_equal(answer.in, data, at[i].len);
		}
		assert_int_equal(disk_flush(g), VIRTIO_BLK_S_OK);
	}
	assert_int_equal(stat_of(g, 0, VFN_STAT_READS), LAYOUTS * DIM(at));
	assert_int_equal(stat_of(g, 0, VFN_STAT_WRITES), LAYOUTS * DIM(at));
	assert_int_equal(stat_of(g, 0, VFN_STAT_FLUSHES), LAYOUTS);
	assert_int_equal(stat_of(g, 0, VFN_STAT_READ_BYTES), stat_of(g, 0, VFN_STAT_WRITE_BYTES));
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 0);
}

static void
memory_is_a_disk(const struct shape *shape)
{
	read_what_was_written(&(struct disk_conf){
		.backend = &vfn_blk_mem, .size = SIZE, .shape = shape, .features = BIT(9)});
}

static void
file_is_a_disk(const struct shape *shape)
{
	read_what_was_written(&(struct disk_conf){.backend = &vfn_blk_file,
		.path = file_make("/dev/shm", SIZE),
		.shape = shape,
		.features = BIT(9)});
}

/* Around the page cache, if the file system can; most pieces are not aligned for that. */
static void
file_on_disk_is_a_disk(const struct shape *shape)
{
	read_what_was_written(&(struct disk_conf){.backend = &vfn_blk_file,
		.path = file_make("/var/tmp", SIZE),
		.shape = shape,
		.features = BIT(9)});
}

static void
sleeping_poller_is_woken(const struct shape *shape)
{
	read_what_was_written(&(struct disk_conf){.backend = &vfn_blk_file,
		.path = file_make("/var/tmp", SIZE),
		.shape = shape,
		.sleep = true,
		.features = BIT(9)});
}

static void
bad_requests_are_answered(const struct shape *shape)
{
	static const struct virtio_blk_discard_write_zeroes whole = {.num_sectors = 8},
							    behind = {.sector = SECTORS - 7,
								    .num_sectors = 8},
							    wraps = {.sector = UINT64_MAX,
								    .num_sectors = 8},
							    flags = {.num_sectors = 8, .flags = 2},
							    unmap = {.num_sectors = 8, .flags = 1},
							    huge = {.num_sectors = UINT32_MAX},
							    none = {0};
	static struct virtio_blk_discard_write_zeroes many[17];
	const struct {
		struct ask ask;
		int status;
		int stat;
	} rows[] = {
#define IN    .type = VIRTIO_BLK_T_IN
#define OUT   .type = VIRTIO_BLK_T_OUT, .out = data
#define OF(d) .out = &(d), .out_len = sizeof(d)
		{{IN, .sector = SECTORS, .in_len = 512}, 1, VFN_STAT_ERRORS_RANGE},
		{{IN, .sector = SECTORS - 1, .in_len = 1024}, 1, VFN_STAT_ERRORS_RANGE},
		{{IN, .sector = UINT64_MAX, .in_len = 512}, 1, VFN_STAT_ERRORS_RANGE},
		{{IN, .sector = UINT64_MAX / 512 + 1, .in_len = 512}, 1, VFN_STAT_ERRORS_RANGE},
		{{IN, .sector = UINT64_MAX / 512, .in_len = 1024}, 1, VFN_STAT_ERRORS_RANGE},
		{{OUT, .sector = SECTORS, .out_len = 512}, 1, VFN_STAT_ERRORS_RANGE},
		{{OUT, .sector = UINT64_MAX, .out_len = 512}, 1, VFN_STAT_ERRORS_RANGE},
		{{IN, .in_len = 511}, 1, VFN_STAT_ERRORS_UNALIGNED},
		{{IN, .in_len = 1}, 1, VFN_STAT_ERRORS_UNALIGNED},
		{{OUT, .out_len = 513}, 1, VFN_STAT_ERRORS_UNALIGNED},
		{{IN, .sector = SECTORS}, 0, 0},
		{{OUT, .sector = SECTORS}, 0, 0},
		{{IN, .out = data, .out_len = 512}, 1, VFN_STAT_ERRORS_BLK_DIRECTION},
		{{IN, .out = data, .out_len = 512, .in_len = 512}, 1,
			VFN_STAT_ERRORS_BLK_DIRECTION},
		{{OUT, .in_len = 512}, 1, VFN_STAT_ERRORS_BLK_DIRECTION},
		{{OUT, .out_len = 512, .in_len = 512}, 1, VFN_STAT_ERRORS_BLK_DIRECTION},
		{{IN, .cut = 1, .in_len = 512}, 1, VFN_STAT_ERRORS_BLK_HEADER},
		{{IN, .cut = 15}, 1, VFN_STAT_ERRORS_BLK_HEADER},
		{{.type = VIRTIO_BLK_T_FLUSH, .cut = 16}, 1, VFN_STAT_ERRORS_BLK_HEADER},
		{{.type = 2}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = 12, .in_len = 512}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = VIRTIO_BLK_T_SECURE_ERASE, OF(whole)}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = UINT32_MAX}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = 0x80000000}, 2, VFN_STAT_ERRORS_TYPE},
		{{IN, .in_len = 512, .no_status = true}, -1, VFN_STAT_ERRORS_STATUS},
		{{OUT, .out_len = 512, .no_status = true}, -1, VFN_STAT_ERRORS_STATUS},
		{{.type = VIRTIO_BLK_T_DISCARD}, 1, VFN_STAT_ERRORS_SEGMENTS},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(many)}, 1, VFN_STAT_ERRORS_SEGMENTS},
		{{.type = VIRTIO_BLK_T_DISCARD, .out = &whole, .out_len = 15}, 1,
			VFN_STAT_ERRORS_SEGMENTS},
		{{.type = VIRTIO_BLK_T_DISCARD, .out = many, .out_len = 17}, 1,
			VFN_STAT_ERRORS_SEGMENTS},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(behind)}, 1, VFN_STAT_ERRORS_RANGE},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(wraps)}, 1, VFN_STAT_ERRORS_RANGE},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(flags)}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(unmap)}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(huge)}, 1, VFN_STAT_ERRORS_SEGMENTS},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(none)}, 0, 0},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(whole)}, 0, 0},
		{{.type = VIRTIO_BLK_T_DISCARD, OF(whole), .in_len = 8}, 1,
			VFN_STAT_ERRORS_BLK_DIRECTION},
		{{.type = VIRTIO_BLK_T_WRITE_ZEROES, OF(behind)}, 1, VFN_STAT_ERRORS_RANGE},
		{{.type = VIRTIO_BLK_T_WRITE_ZEROES, OF(flags)}, 2, VFN_STAT_ERRORS_TYPE},
		{{.type = VIRTIO_BLK_T_WRITE_ZEROES, OF(unmap)}, 0, 0},
		{{.type = VIRTIO_BLK_T_WRITE_ZEROES, OF(whole)}, 0, 0},
		{{.type = VIRTIO_BLK_T_FLUSH, .sector = 5}, 0, 0},
	};
	struct guest *g = disk_open(&(struct disk_conf){.size = SIZE,
		.shape = shape,
		.features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES)});
	unsigned int i;

	memset(back, 0, sizeof(back));
	for (i = 0; i < DIM(rows); i++) {
		uint64_t before = rows[i].stat != 0 ? stat_of(g, 0, rows[i].stat) : 0;
		struct answer answer;

		answer = ask_wait(g, 0, &rows[i].ask);
		if (answer.status != rows[i].status)
			fail_msg("row %u: status %d, not %d", i, answer.status, rows[i].status);
		if (rows[i].stat != 0 && stat_of(g, 0, rows[i].stat) != before + 1)
			fail_msg("row %u is not counted", i);
	}
	/* none of it has changed the disk */
	assert_int_equal(disk_read(g, SECTORS - 1, data, 512), 0);
	assert_memory_equal(data, back, 512);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 0);
}

static void
what_was_not_negotiated_is_not_supported(void **state)
{
	struct guest *g = disk_open(&(struct disk_conf){.size = SIZE});

	(void)state;
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_DISCARD, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(disk_flush(g), VIRTIO_BLK_S_OK);
}

static void
blocks_are_whole(void **state)
{
	struct guest *g = disk_open(&(struct disk_conf){.size = SIZE, .block_size = 4096});

	(void)state;
	assert_int_equal(disk_config(g).blk_size, 4096);
	assert_int_equal(disk_write(g, 1, data, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_write(g, 8, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_write(g, 8, data, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_UNALIGNED), 2);
}

static void
configuration_tells_what_there_is(void **state)
{
	struct guest *g = disk_open(
		&(struct disk_conf){.size = SIZE + 100, .queues = 4, .serial = "0123456789"});
	uint64_t all = BIT(VIRTIO_BLK_F_SIZE_MAX) | BIT(VIRTIO_BLK_F_SEG_MAX) |
		BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_TOPOLOGY) | BIT(VIRTIO_BLK_F_FLUSH) |
		BIT(VIRTIO_BLK_F_CONFIG_WCE) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_DISCARD) |
		BIT(VIRTIO_BLK_F_WRITE_ZEROES);
	struct virtio_blk_config c = disk_config(g);
	struct answer answer;

	(void)state;
	assert_int_equal(guest_features(g) & all, all);
	assert_false(guest_features(g) & (BIT(VIRTIO_BLK_F_RO) | BIT(VIRTIO_BLK_F_SECURE_ERASE)));
	assert_int_equal(c.capacity, SECTORS);
	assert_int_equal(c.blk_size, 512);
	assert_int_equal(c.seg_max, 126);
	assert_int_equal(c.num_queues, 4);
	assert_int_equal(c.physical_block_exp, 3);
	assert_int_equal(c.wce, 1);
	assert_int_equal(c.max_discard_seg, 16);
	assert_int_equal(g->nb_queues, 4);
	answer = ask_wait(g, 3, &(struct ask){.type = VIRTIO_BLK_T_GET_ID, .in_len = 20});
	assert_int_equal(answer.status, 0);
	assert_memory_equal(answer.in, "0123456789\0\0\0\0\0\0\0\0\0\0", 20);
	answer = ask_wait(g, 2, &(struct ask){.type = VIRTIO_BLK_T_GET_ID, .in_len = 5});
	assert_int_equal(answer.status, 0);
	assert_memory_equal(answer.in, "01234", 5);
	assert_int_equal(stat_of(g, 3, VFN_STAT_IDS), 1);
}

static void
read_only_disk_is_not_written(void **state)
{
	struct guest *g;

	(void)state;
	file_make("/dev/shm", SIZE);
	assert_int_equal(chmod(path, 0400), 0);
	g = disk_open(&(struct disk_conf){.backend = &vfn_blk_file,
		.path = path,
		.read_only = true,
		.features = BIT(VIRTIO_BLK_F_RO)});
	assert_true(guest_features(g) & BIT(VIRTIO_BLK_F_RO));
	assert_false(guest_features(g) & BIT(VIRTIO_BLK_F_DISCARD));
	assert_int_equal(disk_write(g, 0, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_READ_ONLY), 1);
	assert_int_equal(disk_read(g, 0, back, 512), VIRTIO_BLK_S_OK);
}

/* Discarded and zeroed ranges read as zeroes; what is beside them stays. */
static void
ranges(const char *dir)
{
	struct virtio_blk_discard_write_zeroes two[] = {
		{.sector = 16, .num_sectors = 8}, {.sector = 40, .num_sectors = 8}};
	static uint8_t zeroes[8 * SECTOR];
	struct disk_conf conf = {.size = SIZE,
		.features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_DISCARD) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES)};
	struct guest *g;
	unsigned int i;

	if (dir != NULL) {
		conf.backend = &vfn_blk_file;
		conf.path = file_make(dir, SIZE);
	}
	g = disk_open(&conf);
	pattern(data, 0, sizeof(data), 1);
	assert_int_equal(disk_write(g, 0, data, sizeof(data)), 0);
	assert_int_equal(ask_wait(g, 0,
				 &(struct ask){.type = VIRTIO_BLK_T_DISCARD,
					 .out = two,
					 .out_len = sizeof(two),
					 .layout = LAYOUT_SPLIT})
				 .status,
		0);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 64, 8, 0), 0);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 80, 8, 1), 0);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 121, 3, 0), 0);
	for (i = 0; i < 128; i += 8)
		if (i == 16 || i == 40 || i == 64 || i == 80)
			memset(data + i * SECTOR, 0, sizeof(zeroes));
	memset(data + 121 * SECTOR, 0, 3 * SECTOR);
	assert_int_equal(disk_read(g, 0, back, sizeof(back)), 0);
	assert_memory_equal(back, data, sizeof(back));
	assert_int_equal(stat_of(g, 0, VFN_STAT_DISCARDS), 1);
	assert_int_equal(stat_of(g, 0, VFN_STAT_DISCARD_BYTES), 8192);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ZEROES), 3);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 0);
}

static void
ranges_of_memory(void **state)
{
	(void)state;
	ranges(NULL);
}

static void
ranges_of_a_file(void **state)
{
	(void)state;
	ranges("/dev/shm");
	disks_close(state);
	ranges("/var/tmp");
}

/* A message that is only sent has no answer. */
static void
not_written(struct guest *g, uint32_t at, uint8_t len, uint8_t v)
{
	int ret = reg_set(g, &g->device, at, len, v);

	assert_true(ret == -EINVAL || (ret == 0 && over_endpoint()));
}

static void
write_through_is_a_register(void **state)
{
	struct disk_conf conf = {.backend = &vfn_blk_file,
		.path = file_make("/var/tmp", SIZE),
		.writethrough = true,
		.features = BIT(VIRTIO_BLK_F_FLUSH) | BIT(VIRTIO_BLK_F_CONFIG_WCE) |
			BIT(VIRTIO_BLK_F_WRITE_ZEROES)};
	struct guest *g = disk_open(&conf);
	uint32_t wce = offsetof(struct virtio_blk_config, wce);

	(void)state;
	assert_int_equal(disk_config(g).wce, 0);
	assert_int_equal(disk_write(g, 0, data, 512), 0);
	assert_int_equal(disk_range(g, VIRTIO_BLK_T_WRITE_ZEROES, 8, 8, 0), 0);
	assert_int_equal(reg_set(g, &g->device, wce, 1, 1), 0);
	assert_int_equal(disk_config(g).wce, 1);
	assert_int_equal(disk_write(g, 0, data, 512), 0);
	not_written(g, wce, 1, 2);
	not_written(g, wce, 2, 0);
	not_written(g, 0, 1, 0);
	not_written(g, wce + 1, 1, 0);
	assert_int_equal(disk_config(g).wce, 1);
	guest_reset(g);
	assert_int_equal(disk_config(g).wce, 0);
	/* not without the feature */
	conf.features = 0;
	disk_start(g, &conf);
	not_written(g, wce, 1, 1);
	assert_int_equal(disk_write(g, 0, data, 512), 0);
}

static void
disks_that_cannot_be_are_refused(void **state)
{
	struct vfn_function *fn;
	struct vfn_link *link;
	struct disk_conf conf = {.backend = &vfn_blk_file, .name = "other"};

	(void)state;
	conf.path = "/nowhere/at/all";
	assert_int_equal(disk_function(&conf, &fn, &link), -ENOENT);
	conf.path = "/dev/shm";
	assert_int_equal(disk_function(&conf, &fn, &link), -EISDIR);
	conf.path = "/dev/null";
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf.path = file_make("/dev/shm", 511);
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf.path = file_make("/dev/shm", 513);
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf.path = file_make("/dev/shm", 6144);
	conf.block_size = 4096;
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf.block_size = 1000;
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf = (struct disk_conf){.backend = &vfn_blk_mem, .size = 511};
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
	conf = (struct disk_conf){.backend = &vfn_blk_null, .size = 0};
	assert_int_equal(disk_function(&conf, &fn, &link), -EINVAL);
}

/* One that writes has the file for itself, who only reads shares it with others that do. */
static void
file_in_use_is_locked(void **state)
{
	struct disk_conf conf = {.backend = &vfn_blk_file, .path = file_make("/dev/shm", SIZE)};
	struct disk_conf other = conf;
	struct vfn_function *fn;
	struct vfn_link *link;
	struct guest *g;

	g = disk_open(&conf);
	other.name = "other";
	assert_int_equal(disk_function(&other, &fn, &link), -EBUSY);
	other.read_only = true;
	assert_int_equal(disk_function(&other, &fn, &link), -EBUSY);
	other.share = true;
	assert_int_equal(disk_function(&other, &fn, &link), 0);
	link->ops->close(link);
	assert_int_equal(disk_write(g, 0, data, 512), 0);
	disks_close(state);
	other.share = false;
	conf.read_only = true;
	g = disk_open(&conf);
	assert_int_equal(disk_function(&other, &fn, &link), 0);
	link->ops->close(link);
	other.read_only = false;
	assert_int_equal(disk_function(&other, &fn, &link), -EBUSY);
	assert_int_equal(disk_read(g, 0, data, 512), 0);
}

/* Another process takes over what this one lets go of. */
static void
file_in_use_is_waited_for(void **state)
{
	struct disk_conf conf = {.backend = &vfn_blk_file, .path = file_make("/dev/shm", SIZE)};
	struct vfn_function *fn, *next;
	struct vfn_link *link, *next_link;

	(void)state;
	assert_int_equal(disk_function(&conf, &fn, &link), 0);
	assert_int_equal(vfn_manage_blk_claim(fn), 0);
	conf.name = "next";
	conf.later = true;
	assert_int_equal(disk_function(&conf, &next, &next_link), 0);
	assert_int_equal(vfn_manage_blk_claim(next), -EBUSY);
	assert_int_equal(truncate(path, 2 * SIZE), 0);
	vfn_manage_blk_release(fn);
	assert_int_equal(vfn_manage_blk_claim(next), 0);
	assert_int_equal(vfn_manage_blk_size(next), 2 * SIZE);
	assert_int_equal(vfn_manage_blk_claim(fn), -EBUSY);
	next_link->ops->close(next_link);
	assert_int_equal(vfn_manage_blk_claim(fn), 0);
	link->ops->close(link);
}

/* The guest is told of another size; what lies beyond it fails. */
static void
size_changes(const struct disk_conf *conf, uint64_t again)
{
	struct guest *g = disk_open(conf);
	uint8_t generation;

	assert_int_equal(disk_config(g).capacity, SECTORS);
	generation = CGET(g, config_generation);
	pattern(data, 0, 512, 7);
	assert_int_equal(disk_write(g, SECTORS - 1, data, 512), 0);
	assert_int_equal(vfn_manage_blk_resize(g->fn, 2 * SIZE + 100), 0);
	assert_int_equal(vfn_manage_blk_size(g->fn), 2 * SIZE);
	assert_int_equal(disk_config(g).capacity, 2 * SECTORS);
	assert_int_not_equal(CGET(g, config_generation), generation);
	assert_int_equal(reg_get(g, &g->isr, 0, 1), 2);
	assert_int_equal(disk_read(g, SECTORS - 1, back, 512), 0);
	assert_memory_equal(back, data, 512);
	assert_int_equal(disk_write(g, 2 * SECTORS - 1, data, 512), 0);
	assert_int_equal(vfn_manage_blk_resize(g->fn, SIZE / 2), 0);
	assert_int_equal(disk_write(g, SECTORS / 2, data, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_write(g, SECTORS / 2 - 1, data, 512), 0);
	assert_int_equal(vfn_manage_blk_resize(g->fn, 0), 0);
	assert_int_equal(vfn_manage_blk_size(g->fn), again);
}

static void
disk_is_resized(void **state)
{
	size_changes(&(struct disk_conf){.size = SIZE}, SIZE / 2);
	disks_close(state);
	size_changes(
		&(struct disk_conf){.backend = &vfn_blk_file, .path = file_make("/dev/shm", SIZE)},
		2 * SIZE);
}

/* A file that is cut off under a guest, or full, fails and goes on. */
static void
file_that_fails_is_told(void **state)
{
	struct guest *g = disk_open(
		&(struct disk_conf){.backend = &vfn_blk_file, .path = file_make("/dev/shm", SIZE)});

	(void)state;
	assert_int_equal(truncate(path, SIZE / 2), 0);
	assert_int_equal(disk_read(g, SECTORS - 8, back, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(disk_read(g, SECTORS / 2 - 8, back, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_read(g, SECTORS / 2 - 4, back, 4096), VIRTIO_BLK_S_IOERR);
	assert_int_equal(stat_of(g, 0, VFN_STAT_ERRORS_IO), 2);
	assert_false(guest_features(g) & BIT(VIRTIO_F_IN_ORDER));
	assert_int_equal(disk_write(g, SECTORS - 8, data, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(disk_read(g, SECTORS - 8, back, 4096), VIRTIO_BLK_S_OK);
	assert_memory_equal(back, data, 4096);
}

static void
latency_is_told(void **state)
{
	struct guest *g = disk_open(
		&(struct disk_conf){.backend = &vfn_blk_file, .path = file_make("/var/tmp", SIZE)});
	struct vfn_blk_latency l = {0};
	unsigned int i;
	uint64_t n = 0;

	(void)state;
	assert_int_equal(vfn_blk_percentile(&l, 500000), 0);
	for (i = 0; i < 100; i++)
		assert_int_equal(disk_read(g, i, back, 512), 0);
	assert_int_equal(vfn_manage_blk_latency(g->fn, -1, VFN_BLK_READ, &l), 0);
	for (i = 0; i < VFN_BLK_LATENCY_BUCKETS; i++)
		n += l.count[i];
	assert_int_equal(n, 100);
	assert_in_range(vfn_blk_percentile(&l, 500000), 100, 1000000000);
	assert_true(vfn_blk_percentile(&l, 999900) >= vfn_blk_percentile(&l, 500000));
	assert_int_equal(vfn_manage_blk_latency(g->fn, 0, VFN_BLK_WRITE, &l), 0);
	assert_int_equal(vfn_blk_percentile(&l, 999900), 0);
	assert_int_equal(vfn_manage_blk_latency(g->fn, 1, VFN_BLK_READ, &l), -ENOENT);
	/* 1000 of 5 ns, one of a second */
	memset(&l, 0, sizeof(l));
	l.count[5] = 1000;
	l.count[VFN_BLK_LATENCY_BUCKETS - 1] = 1;
	assert_int_equal(vfn_blk_percentile(&l, 500000), 5);
	assert_int_equal(vfn_blk_percentile(&l, 999000), 5);
	assert_true(vfn_blk_percentile(&l, 999900) > 1000000000);
}

int
main(void)
{
	static const struct CMUnitTest plain[] = {
#define T(f) cmocka_unit_test_teardown(f, teardown)
		T(what_was_not_negotiated_is_not_supported),
		T(blocks_are_whole),
		T(configuration_tells_what_there_is),
		T(read_only_disk_is_not_written),
		T(ranges_of_memory),
		T(ranges_of_a_file),
		T(write_through_is_a_register),
		T(disks_that_cannot_be_are_refused),
		T(file_in_use_is_locked),
		T(file_in_use_is_waited_for),
		T(disk_is_resized),
		T(file_that_fails_is_told),
		T(latency_is_told),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(memory_is_a_disk),
		SHAPED(file_is_a_disk),
		SHAPED(file_on_disk_is_a_disk),
		SHAPED(sleeping_poller_is_woken),
		SHAPED(bad_requests_are_answered),
	};

	if (fn_eal_init(NULL) != 0)
		return 1;
	shaped_teardown = teardown;
	return run_list("blk", plain, DIM(plain), shaped, DIM(shaped));
}
