/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Writes, reads and checks a block device or a file, around the page cache (blocks.h):
 *
 *   blocks run PATH DEPTH SEED SECONDS [RECORD]     0: until SIGTERM. Status 0 if all was right
 *   blocks retry PATH DEPTH SEED SECONDS [RECORD]   the same, and what fails is tried again
 *   blocks check PATH RECORD                        after whoever kept the record was killed
 *
 * The disk is all zeroes at first, or what the record says.
 */

#define _GNU_SOURCE /* O_DIRECT */

#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "blocks.h"

static aio_context_t context;
static int disk;
static struct iocb iocbs[MAX_SLOTS];

static int
io_submit_slot(struct slot *s)
{
	static const uint16_t code[] = {IOCB_CMD_PREAD, IOCB_CMD_PWRITE, IOCB_CMD_FDSYNC};
	struct iocb *cb = &iocbs[s - slots], *list = cb;

	*cb = (struct iocb){
		.aio_data = (uintptr_t)s,
		.aio_lio_opcode = code[s->kind],
		.aio_fildes = disk,
	};
	if (s->kind != SYNC) {
		cb->aio_buf = (uintptr_t)s->buf;
		cb->aio_nbytes = (uint64_t)s->nb * SECTOR;
		cb->aio_offset = s->sector * SECTOR;
	}
	return syscall(SYS_io_submit, context, 1, &list) == 1 ? 0 : -errno;
}

static int
io_wait(void)
{
	struct timespec limit = {.tv_nsec = 100000000};
	struct io_event events[MAX_SLOTS];
	long n, i;

	n = syscall(SYS_io_getevents, context, 1, MAX_SLOTS, events, &limit);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (i = 0; i < n; i++) {
		struct slot *s = (struct slot *)(uintptr_t)events[i].data;
		int64_t whole = s->kind == SYNC ? 0 : (int64_t)s->nb * SECTOR;

		io_ended(s, events[i].res == whole ? 0 : events[i].res < 0 ? events[i].res : -EIO);
	}
	return n;
}

static uint64_t
open_disk(const char *path, int flags)
{
	int block = SECTOR;
	uint64_t size = 0;
	struct stat st;

	disk = open(path, flags | O_DIRECT);
	if (disk < 0 && errno == EINVAL) /* a file system that has no such way */
		disk = open(path, flags);
	if (disk < 0 || fstat(disk, &st) < 0 ||
		(S_ISBLK(st.st_mode) &&
			(ioctl(disk, BLKGETSIZE64, &size) < 0 ||
				ioctl(disk, BLKSSZGET, &block) < 0))) {
		perror(path);
		exit(2);
	}
	unit = block / SECTOR;
	return (S_ISBLK(st.st_mode) ? size : (uint64_t)st.st_size) / SECTOR;
}

int
main(int argc, char **argv)
{
	unsigned int depth = 1;
	uint64_t nb_sectors;
	void *memory;
	bool check;

	if (argc < 4 || (argc < 6 && strcmp(argv[1], "check") != 0)) {
		fprintf(stderr,
			"usage: blocks run|retry PATH DEPTH SEED SECONDS [RECORD], "
			"blocks check PATH RECORD\n");
		return 2;
	}
	check = strcmp(argv[1], "check") == 0;
	errors_are_expected = strcmp(argv[1], "retry") == 0;
	nb_sectors = open_disk(argv[2], check ? O_RDONLY : O_RDWR);
	if (!check)
		depth = strtoul(argv[3], NULL, 0);
	if (depth == 0 || depth > MAX_SLOTS ||
		posix_memalign(&memory, 4096, (size_t)depth * MOST * SECTOR) != 0 ||
		syscall(SYS_io_setup, MAX_SLOTS, &context) < 0) {
		fprintf(stderr, "blocks: no such depth\n");
		return 2;
	}
	slots_init(depth, memory);
	record_open(check ? argv[3] : argc > 6 ? argv[6] : NULL, nb_sectors);
	if (check)
		check_all();
	else
		run(depth, strtoull(argv[4], NULL, 0), strtoul(argv[5], NULL, 0));
	return result();
}
