/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The file-system side of a listening socket: what may be at its path, and who may put it there.
 * Runs on the main thread.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common.h"

/* Others hold the lock for one bind or one unlink. */
#define LOCK_WAIT_MS 500
#define LOCK_POLL_MS 5

#define BACKLOG 128

bool
socket_path_fits(const char *path)
{
	const size_t limit = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (strlen(path) <= limit)
		return true;
	report("socket path %s is too long: %zu bytes, the limit is %zu", path, strlen(path),
		limit);
	return false;
}

/*
 * Between "is it stale?" and the bind, and between "is it ours?" and the unlink, a second instance
 * must not act on the same path. The directory itself is locked: that leaves no file behind, ends
 * with the process, and holds across containers and spellings of the path.
 */
static int
socket_lock(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *dir;
	int fd, waited;

	dir = dirname(strcpy(copy, path));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		report("cannot open directory %s of socket %s: %s", dir, path, strerror(errno));
		return -1;
	}
	for (waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += LOCK_POLL_MS) {
		if (errno != EWOULDBLOCK || waited >= LOCK_WAIT_MS) {
			report("cannot lock directory %s of socket %s: %s", dir, path,
				strerror(errno));
			close(fd);
			return -1;
		}
		usleep(LOCK_POLL_MS * 1000);
	}
	return fd;
}

/*
 * A datagram socket asks without connecting: a live stream socket answers EPROTOTYPE, also between
 * its bind and its listen, and its owner sees no connection. errno tells the outcome.
 */
static void
probe(const struct sockaddr_un *un)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int err;

	if (fd < 0)
		return;
	err = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 ? 0 : errno;
	close(fd);
	errno = err;
}

static int
clear_path(const struct sockaddr_un *un)
{
	const char *path = un->sun_path;
	struct stat st;

	if (lstat(path, &st) != 0) {
		if (errno == ENOENT)
			return 0;
		report("cannot look at socket path %s: %s", path, strerror(errno));
		return -1;
	}
	if (!S_ISSOCK(st.st_mode)) {
		report("%s exists and is not a socket, it is left alone", path);
		return -1;
	}
	probe(un);
	switch (errno) {
	case ECONNREFUSED:
		break;
	case 0:
	case EPROTOTYPE:
		report("socket %s is in use by another process", path);
		return -1;
	default:
		report("cannot tell who uses socket %s: %s", path, strerror(errno));
		return -1;
	}
	if (unlink(path) != 0) {
		report("cannot remove stale socket %s: %s", path, strerror(errno));
		return -1;
	}
	printf("%s: removed stale socket %s\n", program, path);
	return 0;
}

static int
give(const struct socket_spec *sock, const char *path)
{
	return sock->uid == (uid_t)-1 && sock->gid == (gid_t)-1 ?
		0 :
		lchown(path, sock->uid, sock->gid);
}

/* Nobody it is not meant for gets in between. */
static int
bind_and_listen(
	const struct socket_spec *sock, const struct sockaddr_un *un, struct listener *listener)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret;
	mode_t mask = umask(0);
	struct stat st;

	umask(sock->mode != 0 ? ~sock->mode & 0777 : mask);
	ret = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)un, sizeof(*un));
	umask(mask);
	if (ret != 0) {
		report("cannot create socket %s: %s", un->sun_path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (lstat(un->sun_path, &st) != 0 || give(sock, un->sun_path) != 0 ||
		listen(fd, BACKLOG) != 0) {
		report("cannot listen on socket %s: %s", un->sun_path, strerror(errno));
		unlink(un->sun_path);
		close(fd);
		return -1;
	}
	*listener = (struct listener){fd, st.st_dev, st.st_ino};
	return 0;
}

int
socket_listen(const struct socket_spec *sock, struct listener *listener)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int lock = socket_lock(sock->path), ret;

	if (lock < 0)
		return -1;
	strcpy(un.sun_path, sock->path);
	ret = clear_path(&un) != 0 ? -1 : bind_and_listen(sock, &un, listener);
	close(lock);
	return ret;
}

void
socket_remove(const char *path, const struct listener *listener)
{
	int lock = socket_lock(path);
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == listener->dev && st.st_ino == listener->ino &&
		unlink(path) != 0)
		report("cannot remove socket %s: %s", path, strerror(errno));
	if (lock >= 0)
		close(lock);
}

bool
parse_mode(const char *text, mode_t *mode)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	*mode = v;
	return *text != '\0' && *end == '\0' && v <= 0777;
}

bool
parse_owner(const char *text, uid_t *uid, gid_t *gid)
{
	char user[64];
	size_t len = strcspn(text, ":");
	const struct passwd *pw;
	const struct group *gr;
	char *end;

	if (len >= sizeof(user))
		return false;
	memcpy(user, text, len);
	user[len] = '\0';
	if (len > 0) {
		*uid = strtoul(user, &end, 10);
		if (*end != '\0') {
			pw = getpwnam(user);
			if (pw == NULL)
				return false;
			*uid = pw->pw_uid;
		}
	}
	if (text[len] == '\0')
		return len > 0;
	text += len + 1;
	*gid = strtoul(text, &end, 10);
	if (*text == '\0' || *end != '\0') {
		gr = getgrnam(text);
		if (gr == NULL)
			return false;
		*gid = gr->gr_gid;
	}
	return true;
}
