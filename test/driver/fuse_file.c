/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* The kernel's side of FUSE is <linux/fuse.h>; this is as much of the other one as a file needs. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/fuse.h>

#include "fn_harness.h"
#include "fuse_file.h"

#define MOST	 (1u << 20) /* of a request */
#define HELD	 64
#define TURN_MS	 2
#define PATIENCE 30000

/* What the test tells the server, and the other way. */
struct shared {
	uint32_t fail_ops, nb_fail, hold, count[4]; /* atomic */
	int32_t error;
	uint32_t nb_held;
	uint64_t size;
	uint8_t bytes[];
};

static struct shared *shared;
static size_t shared_len;
static pid_t server;
static char path[] = "/tmp/vfn-fuse-XXXXXX";

#define GET(field)    __atomic_load_n(&shared->field, __ATOMIC_SEQ_CST)
#define SET(field, v) __atomic_store_n(&shared->field, v, __ATOMIC_SEQ_CST)

/* ---- the server, a process of its own ---- */

static int fd;
static uint8_t in[MOST + 4096], out[MOST + 4096];
static struct {
	struct fuse_in_header hdr;
	uint64_t offset;
	uint32_t len;
	uint8_t *data; /* of a write */
	uint64_t since;
} held[HELD];

static void
reply(uint64_t unique, int error, const void *data, size_t len)
{
	struct fuse_out_header hdr = {.len = sizeof(hdr) + len, .error = error, .unique = unique};

	memcpy(out, &hdr, sizeof(hdr));
	if (len > 0)
		memcpy(out + sizeof(hdr), data, len);
	/* Who asked may be gone. */
	if (write(fd, out, hdr.len) < 0 && errno != ENOENT)
		_exit(1);
}

static struct fuse_attr
attributes(void)
{
	uint64_t size = GET(size);

	return (struct fuse_attr){.ino = FUSE_ROOT_ID,
		.size = size,
		.blocks = size / 512,
		.mode = S_IFREG | 0600,
		.nlink = 1,
		.blksize = 4096};
}

static unsigned int
kind(uint32_t opcode)
{
	return opcode == FUSE_READ	 ? FUSE_FILE_READ :
		opcode == FUSE_WRITE	 ? FUSE_FILE_WRITE :
		opcode == FUSE_FSYNC	 ? FUSE_FILE_SYNC :
		opcode == FUSE_FALLOCATE ? FUSE_FILE_RANGE :
					   0;
}

/* Reading, writing and the like, once nothing holds it. */
static void
carry_out(const struct fuse_in_header *hdr, uint64_t offset, uint32_t len, const void *data)
{
	unsigned int op = kind(hdr->opcode);
	uint64_t size = GET(size);

	__atomic_fetch_add(&shared->count[__builtin_ctz(op)], 1, __ATOMIC_SEQ_CST);
	if (GET(fail_ops) & op && GET(nb_fail) > 0) {
		__atomic_fetch_sub(&shared->nb_fail, 1, __ATOMIC_SEQ_CST);
		reply(hdr->unique, shared->error, NULL, 0);
		return;
	}
	if (offset > size || len > size - offset)
		len = offset > size ? 0 : size - offset;
	switch (op) {
	case FUSE_FILE_READ:
		reply(hdr->unique, 0, shared->bytes + offset, len);
		break;
	case FUSE_FILE_WRITE:
		memcpy(shared->bytes + offset, data, len);
		reply(hdr->unique, 0, &(struct fuse_write_out){.size = len},
			sizeof(struct fuse_write_out));
		break;
	case FUSE_FILE_RANGE:
		memset(shared->bytes + offset, 0, len);
		/* fall through */
	default:
		reply(hdr->unique, 0, NULL, 0);
	}
}

/* As with RWF_DSYNC, which the kernel leaves to the server. */
static bool
fails_to_sync(const struct fuse_in_header *hdr, const struct fuse_write_in *w)
{
	if (!(w->flags & O_DSYNC))
		return false;
	__atomic_fetch_add(&shared->count[__builtin_ctz(FUSE_FILE_SYNC)], 1, __ATOMIC_SEQ_CST);
	if (!(GET(fail_ops) & FUSE_FILE_SYNC) || GET(nb_fail) == 0)
		return false;
	__atomic_fetch_sub(&shared->nb_fail, 1, __ATOMIC_SEQ_CST);
	reply(hdr->unique, shared->error, NULL, 0);
	return true;
}

static void
begin(const struct fuse_in_header *hdr, uint64_t offset, uint32_t len, const void *data)
{
	uint32_t n = shared->nb_held;

	if (!(GET(hold) & kind(hdr->opcode)) || n == HELD) {
		carry_out(hdr, offset, len, data);
		return;
	}
	held[n].hdr = *hdr;
	held[n].offset = offset;
	held[n].len = len;
	held[n].data = NULL;
	held[n].since = now_ms();
	if (data != NULL) {
		held[n].data = malloc(len);
		memcpy(held[n].data, data, len);
	}
	SET(nb_held, n + 1);
}

static void
release_held(void)
{
	uint32_t i, n = shared->nb_held;

	if (n == 0 || (GET(hold) != 0 && now_ms() - held[0].since < PATIENCE))
		return;
	for (i = 0; i < n; i++) {
		carry_out(&held[i].hdr, held[i].offset, held[i].len, held[i].data);
		free(held[i].data);
	}
	SET(nb_held, 0);
}

static void
serve_one(const struct fuse_in_header *hdr, const void *arg)
{
	const struct fuse_read_in *r = arg;
	const struct fuse_write_in *w = arg;
	const struct fuse_fallocate_in *f = arg;
	const struct fuse_setattr_in *s = arg;
	struct fuse_attr_out attr;

	switch (hdr->opcode) {
	case FUSE_INIT:
		reply(hdr->unique, 0,
			&(struct fuse_init_out){.major = FUSE_KERNEL_VERSION,
				.minor = 31,
				.max_readahead = 0,
				.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES,
				.max_background = 2 * HELD,
				.congestion_threshold = 2 * HELD,
				.max_write = MOST,
				.max_pages = MOST / 4096},
			sizeof(struct fuse_init_out));
		break;
	case FUSE_SETATTR:
		if (s->valid & FATTR_SIZE)
			SET(size, s->size);
		/* fall through */
	case FUSE_GETATTR:
		attr = (struct fuse_attr_out){.attr = attributes()};
		reply(hdr->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_STATFS:
		reply(hdr->unique, 0, &(struct fuse_statfs_out){0}, sizeof(struct fuse_statfs_out));
		break;
	case FUSE_OPEN:
		reply(hdr->unique, 0,
			&(struct fuse_open_out){
				.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES},
			sizeof(struct fuse_open_out));
		break;
	case FUSE_READ:
		begin(hdr, r->offset, r->size, NULL);
		break;
	case FUSE_WRITE:
		if (!fails_to_sync(hdr, w))
			begin(hdr, w->offset, w->size, w + 1);
		break;
	case FUSE_FSYNC:
		begin(hdr, 0, 0, NULL);
		break;
	case FUSE_FALLOCATE:
		begin(hdr, f->offset, f->length, NULL);
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		reply(hdr->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT: /* what is held stays held: a disk does not let itself be interrupted
			      */
		break;
	default:
		reply(hdr->unique, -ENOSYS, NULL, 0);
	}
}

/* Until the mount or the test is gone. */
static void
serve(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		poll(&p, 1, TURN_MS);
		release_held();
		if (!(p.revents & (POLLIN | POLLERR | POLLHUP)))
			continue;
		n = read(fd, in, sizeof(in));
		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (n < (ssize_t)sizeof(struct fuse_in_header))
			break;
		serve_one((struct fuse_in_header *)in, in + sizeof(struct fuse_in_header));
	}
	_exit(0);
}

/* ---- the test ---- */

bool
fuse_file_init(void)
{
	int probe = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (probe >= 0)
		close(probe);
	return probe >= 0 && unshare(CLONE_NEWNS) == 0 &&
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

const char *
fuse_file_open(uint64_t size)
{
	pid_t parent = getpid();
	char options[128];
	int file;

	strcpy(path + sizeof(path) - sizeof("XXXXXX"), "XXXXXX");
	file = mkstemp(path);
	assert_true(file >= 0);
	close(file);
	shared_len = sizeof(*shared) + 2 * size;
	shared = mmap(NULL, shared_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(shared != MAP_FAILED);
	shared->size = size;
	fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	assert_true(fd >= 0);
	snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0", fd);
	assert_int_equal(mount("vfn", path, "fuse", MS_NOSUID | MS_NODEV, options), 0);
	server = fork();
	assert_true(server >= 0);
	if (server == 0)
		serve(parent);
	close(fd);
	return path;
}

void
fuse_file_kill(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
}

void
fuse_file_close(void)
{
	if (shared == NULL)
		return;
	fuse_file_kill();
	umount2(path, MNT_DETACH);
	unlink(path);
	munmap(shared, shared_len);
	shared = NULL;
}

void
fuse_file_fail(unsigned int ops, int error, unsigned int n)
{
	shared->error = error;
	SET(fail_ops, ops);
	SET(nb_fail, n);
}

void
fuse_file_hold(unsigned int ops)
{
	SET(hold, ops);
}

void
fuse_file_wait(unsigned int n)
{
	uint64_t end = now_ms() + PATIENCE / 2;

	while (GET(nb_held) < n && now_ms() < end)
		nap_us(200);
	assert_int_equal(GET(nb_held), n);
}

void
fuse_file_release(void)
{
	if (shared != NULL)
		SET(hold, 0);
}

unsigned int
fuse_file_count(unsigned int op)
{
	return GET(count[__builtin_ctz(op)]);
}

uint8_t *
fuse_file_bytes(void)
{
	return shared->bytes;
}
