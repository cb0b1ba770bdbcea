/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Descriptors that strangers hand over. A file may be on a file system that its sender serves
 * himself: fstat(), fstatfs(), and at the end close() then wait for his answer. So a file is known
 * by what the kernel says without asking the file system: its name in /proc if that is no path,
 * whether it can be sealed (only shared memory and huge pages can), or its mount, if that is one of
 * ours. On the gate's thread.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gate_fd.h"

static bool
starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static bool
is_stream(int fd)
{
	int domain, type, listens;
	socklen_t len = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && !listens;
}

/* Number of the mount that a file is on, or -1. */
static int
mount_of(int fd)
{
	char path[64], line[256];
	int mount = -1;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	in = fopen(path, "re");
	if (in == NULL)
		return -1;
	while (mount < 0 && fgets(line, sizeof(line), in) != NULL)
		sscanf(line, "mnt_id: %d", &mount);
	fclose(in);
	return mount;
}

/* A file system on a disk of this machine, mounted where we can see it. */
static bool
is_on_disk(int fd)
{
	static const char *const types[] = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"};
	const int mount = mount_of(fd);
	bool found = false;
	char *line = NULL;
	size_t room = 0, i;
	FILE *in;

	in = mount >= 0 ? fopen("/proc/self/mountinfo", "re") : NULL;
	if (in == NULL)
		return false;
	while (!found && getline(&line, &room, in) > 0) {
		const char *type = strstr(line, " - ");

		if (atoi(line) != mount || type == NULL)
			continue;
		for (i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
			const size_t len = strlen(types[i]);

			if (strncmp(type + 3, types[i], len) == 0 && type[3 + len] == ' ')
				found = true;
		}
		break;
	}
	free(line);
	fclose(in);
	return found;
}

/* One that can be mapped and written. */
static bool
is_memory(int fd, struct gate_fd *out)
{
	const int seals = fcntl(fd, F_GET_SEALS), flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || (flags & O_PATH) != 0)
		return false;
	if (seals < 0 ? !is_on_disk(fd) : (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0)
		return false;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size < 0)
		return false;
	out->size = st.st_size;
	out->block = st.st_blksize > 0 ? st.st_blksize : 0;
	return true;
}

void
gate_fd_look(int fd, struct gate_fd *out)
{
	char path[64], name[128];
	ssize_t n;

	*out = (struct gate_fd){.kind = GATE_FD_OTHER, .fd = fd};
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n < 0)
		return;
	name[n] = '\0';
	/* What lies on a file system has a name that begins with a slash, whatever its owner does.
	 */
	if (strcmp(name, "anon_inode:[eventfd]") == 0)
		out->kind = GATE_FD_EVENT;
	else if (starts(name, "pipe:["))
		out->kind = GATE_FD_PIPE;
	else if (starts(name, "socket:["))
		out->kind = is_stream(fd) ? GATE_FD_SOCKET : GATE_FD_OTHER;
	else if (is_memory(fd, out))
		out->kind = GATE_FD_MEMORY;
}

void
gate_fd_close(struct vfn_closer *closer, const struct gate_fd *fd)
{
	if (fd->kind == GATE_FD_EVENT || fd->kind == GATE_FD_PIPE || fd->kind == GATE_FD_SOCKET)
		close(fd->fd);
	else
		vfn_close_later(closer, fd->fd);
}
