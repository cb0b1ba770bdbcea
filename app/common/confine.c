/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the process gives up: new privileges at once, and when EAL and the devices are up, before it
 * hears of any front-end, root's identity, core files, and most system calls (seccomp.c). On the
 * main thread, for all threads.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_eal.h>

#include "common.h"

static struct {
	char name[64]; /* "": stay who we are */
	uid_t uid;
	gid_t gid;
} user;

/* As decimal number when no name is it. */
static bool
parse_id(const char *text, unsigned long *id)
{
	char *end;

	errno = 0;
	*id = strtoul(text, &end, 10);
	/* the last one means "unchanged" to the kernel */
	return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *id < UINT32_MAX;
}

int
user_find(const char *spec)
{
	const char *colon = strchr(spec, ':');
	size_t length = colon != NULL ? (size_t)(colon - spec) : strlen(spec);
	const struct passwd *passwd;
	const struct group *group;
	unsigned long id;

	if (length == 0 || length >= sizeof(user.name)) {
		report("--user %s: a user's name is missing or too long", spec);
		return -1;
	}
	memcpy(user.name, spec, length);
	user.name[length] = '\0';
	passwd = getpwnam(user.name);
	if (passwd == NULL && parse_id(user.name, &id))
		passwd = getpwuid(id);
	if (passwd == NULL) {
		report("--user %s: there is no user %s", spec, user.name);
		return -1;
	}
	user.uid = passwd->pw_uid;
	user.gid = passwd->pw_gid;
	snprintf(user.name, sizeof(user.name), "%s", passwd->pw_name);
	if (colon == NULL)
		return 0;
	group = getgrnam(colon + 1);
	if (group != NULL) {
		user.gid = group->gr_gid;
	} else if (parse_id(colon + 1, &id)) {
		user.gid = id;
	} else {
		report("--user %s: there is no group %s", spec, colon + 1);
		return -1;
	}
	return 0;
}

/*
 * EAL made its run-time directory, and sockets in it, as root. They are the user's from now on: to
 * connect to (telemetry, --take-over) and to remove at the end.
 */
static int
give_runtime_dir(const char *path, bool *used)
{
	struct dirent *entry;
	struct stat st;
	int entry_fd, fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	int ret = 0;

	*used = false;
	if (dir == NULL) {
		if (fd >= 0)
			close(fd);
		return errno == ENOENT ? 0 : -1; /* EAL can do without */
	}
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		*used = true;
		/* The directory may have been the user's before, who may put something else there.
		 */
		entry_fd = openat(fd, entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (entry_fd < 0)
			continue;
		if (fstat(entry_fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_nlink == 1 &&
			fchownat(entry_fd, "", user.uid, user.gid, AT_EMPTY_PATH) != 0)
			ret = -1;
		close(entry_fd);
	}
	if (*used && ret == 0)
		ret = fchown(fd, user.uid, user.gid);
	/* And EAL's directory around it, where that is in one of the user's. */
	if (*used && ret == 0 && fstatat(fd, "../..", &st, 0) == 0 && st.st_uid == user.uid)
		ret = fchownat(fd, "..", user.uid, user.gid, 0);
	closedir(dir);
	return ret;
}

/* Asked as that user while there is a way back: root can still clean up behind a failed start. */
static bool
can_clean_up(const char *path)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	bool can;

	can = setegid(user.gid) == 0 && seteuid(user.uid) == 0 &&
		faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0;
	return seteuid(uid) == 0 && setegid(gid) == 0 && can;
}

/* glibc does each of these for all threads. */
static int
become_user(void)
{
	const char *path = rte_eal_get_runtime_dir();
	bool used;

	if (geteuid() == user.uid && getuid() == user.uid && geteuid() != 0 &&
		getegid() == user.gid)
		return 0; /* already there, for example by User= of a unit */
	if (geteuid() != 0) {
		report("only root can become user %s", user.name);
		return -1;
	}
	if (give_runtime_dir(path, &used) != 0) {
		report("cannot give %s to user %s: %s", path, user.name, strerror(errno));
		return -1;
	}
	if (initgroups(user.name, user.gid) != 0) {
		report("cannot become user %s: %s", user.name, strerror(errno));
		return -1;
	}
	if (used && !can_clean_up(path)) {
		report("user %s cannot use %s, EAL's run-time directory: set RUNTIME_DIRECTORY to "
		       "a "
		       "directory of that user, or do without (--no-shconf --no-telemetry)",
			user.name, path);
		return -1;
	}
	if (setresgid(user.gid, user.gid, user.gid) != 0 ||
		setresuid(user.uid, user.uid, user.uid) != 0) {
		report("cannot become user %s: %s", user.name, strerror(errno));
		return -1;
	}
	/* The kernel took the capabilities with the last identity of root, unless told otherwise.
	 */
	if (user.uid != 0 && (setuid(0) == 0 || setgid(0) == 0)) {
		report("user %s could become root again", user.name);
		return -1;
	}
	return 0;
}

int
confine_early(bool no_confine)
{
#ifdef SANITIZED
	/* They map code, and trace the process when it ends. */
	no_confine = true;
#endif
	if (no_confine || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
		return 0;
	report("cannot give up new privileges: %s", strerror(errno));
	return -1;
}

int
confine(bool no_confine)
{
	int ret;

#ifdef SANITIZED
	no_confine = true;
#endif

	if (user.name[0] != '\0') {
		if (become_user() != 0)
			return -1;
		printf("%s: user %s\n", program, user.name);
	}
	if (no_confine) {
		printf("%s: not confined\n", program);
		return 0;
	}
	/*
	 * Guests' memory is in this process: no core file of it, no other process of the user that
	 * attaches to it. After the change of identity, which resets this.
	 */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
		report("cannot refuse core files: %s", strerror(errno));
		return -1;
	}
	ret = seccomp_install();
	if (ret < 0) {
		report("cannot install the seccomp filter: %s; --no-confine does without",
			strerror(-ret));
		return -1;
	}
	printf("%s: confined, %s\n", program,
		ret == 0 ? "seccomp filter" : "no seccomp filter: built without libseccomp");
	return 0;
}
