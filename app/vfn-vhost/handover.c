/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Hot upgrade: a new process takes the devices over from a running one. They talk over the
 * telemetry socket of the old one, and by files in a directory that the new one makes.
 *
 *   new                                     old
 *   EAL and devices are up
 *   /vfn_vhost/prepare,DIRECTORY      ->    saves every device there, guests go on
 *   tries all parts on its devices   <-
 *   /vfn_vhost/hand_over,DIRECTORY    ->    disconnects its front-ends, saves every device;
 *                                     <-    the file .offer is there
 *   restores, makes its sockets
 *   renames .offer to .taken                sees .taken, and ends
 *   lets front-ends in
 *
 * The rename is the one step that cannot be taken back, and only one of the two can do it: if the
 * new process ends, which frees .lock, or has not taken the offer OFFER_MS after it was made, the
 * old one renames it to .withdrawn, and serves again. Whoever is stopped in between finds out by
 * the same rename when it goes on.
 *
 * Telemetry's threads ask; the main thread does it, since sockets are its own.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_telemetry.h>

#include "app.h"

#define PREPARE	  "/vfn_vhost/prepare"
#define HAND_OVER "/vfn_vhost/hand_over"

#define OFFER	  ".offer"
#define TAKEN	  ".taken"
#define WITHDRAWN ".withdrawn"
#define LOCK	  ".lock"

/*
 * The old process answers in this time, or refuses: what it has not begun by then it never does.
 * The new one waits a little longer for the answer. Stopping and saving takes milliseconds a
 * device.
 */
#define BEGIN_MS  5000
#define ANSWER_MS 10000
#define OFFER_MS  10000
#define LOOK_MS	  10

/*
 * The directory is held open: it stays the one that was checked, whatever becomes of its name.
 * Both sides have one of these, the main thread's.
 */
struct meeting {
	char path[PATH_MAX];
	int fd; /* -1: there is none */
};

static int
meeting_open(struct meeting *m, const char *path)
{
	strcpy(m->path, path);
	m->fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return m->fd < 0 ? -1 : 0;
}

static bool
has(const struct meeting *m, const char *file)
{
	return faccessat(m->fd, file, F_OK, 0) == 0;
}

/* A descriptor of the new file, or -1 and errno. */
static int
create(const struct meeting *m, const char *file)
{
	return openat(m->fd, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
}

/* Remove it and our files in it; what else is in there keeps it. */
static void
meeting_end(struct meeting *m)
{
	static const char *const files[] = {OFFER, TAKEN, WITHDRAWN, LOCK};
	unsigned int i;

	for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(m->fd, files[i], 0);
	rmdir(m->path);
	close(m->fd);
	m->fd = -1;
}

/* ---- the old process ---- */

enum asked { NOTHING, TO_PREPARE, TO_HAND_OVER };

static struct {
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t done;
	enum asked asked;
	int64_t asked_at;
	bool begun;
	char directory[PATH_MAX];
	const char *error; /* the answer, NULL: it was done */
} request = {.lock = PTHREAD_MUTEX_INITIALIZER};

static int request_fd = -1;

static struct meeting offer = {.fd = -1};
static int64_t offer_until;

/* Is there somebody who waits for what is in the directory? Nobody to be seen: a person may. */
static bool
taker_lives(void)
{
	int fd = openat(offer.fd, LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool lives = true;

	if (fd >= 0) {
		lives = flock(fd, LOCK_EX | LOCK_NB) < 0;
		close(fd);
	}
	return lives;
}

static const char *
ask_main(enum asked what, const char *directory)
{
	struct timespec end;
	const char *error;

	if (directory == NULL || directory[0] != '/' ||
		strlen(directory) >= sizeof(request.directory))
		return "an absolute path of a directory is needed";
	pthread_mutex_lock(&request.lock);
	if (request.asked != NOTHING) {
		pthread_mutex_unlock(&request.lock);
		return "another request is being dealt with";
	}
	request.asked = what;
	request.asked_at = now_ms();
	request.begun = false;
	strcpy(request.directory, directory);
	eventfd_write(request_fd, 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += BEGIN_MS / 1000;
	while (request.asked != NOTHING) {
		if (request.begun)
			pthread_cond_wait(&request.done, &request.lock);
		else if (pthread_cond_timedwait(&request.done, &request.lock, &end) == ETIMEDOUT &&
			!request.begun)
			break;
	}
	error = request.asked == NOTHING ? request.error : "the main thread is busy";
	request.asked = NOTHING;
	pthread_mutex_unlock(&request.lock);
	return error;
}

static int
answer(const char *error, struct rte_tel_data *d)
{
	rte_tel_data_start_dict(d);
	if (error == NULL)
		return rte_tel_data_add_dict_string(d, "result", "complete");
	return rte_tel_data_add_dict_string(d, "error", error);
}

/* Telemetry's threads. */
static int
asked_to_prepare(const char *cmd, const char *params, struct rte_tel_data *d)
{
	(void)cmd;
	return answer(ask_main(TO_PREPARE, params), d);
}

static int
asked_to_hand_over(const char *cmd, const char *params, struct rte_tel_data *d)
{
	(void)cmd;
	return answer(ask_main(TO_HAND_OVER, params), d);
}

int
handover_init(void)
{
	pthread_condattr_t attr;

	request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (request_fd < 0) {
		report("eventfd: %s", strerror(errno));
		return -1;
	}
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&request.done, &attr);
	pthread_condattr_destroy(&attr);
	rte_telemetry_register_cmd(PREPARE, asked_to_prepare,
		"Save every device for another process; guests go on. Parameter: directory");
	rte_telemetry_register_cmd(HAND_OVER, asked_to_hand_over,
		"Disconnect, and save every device for another process, which has 10 s to take "
		"them. Parameter: directory");
	return request_fd;
}

/* Everything again as it was before the offer. */
static void
take_back(const char *why)
{
	printf("vfn-vhost: %s: serving again\n", why);
	parts_remove_all(offer.path);
	meeting_end(&offer);
	parts_resume_all();
	if (serving_resume() != 0)
		report("not every socket is served again");
}

/* NULL, or what went wrong. */
static const char *
hand_over(const char *directory)
{
	int fd;

	if (offer.fd >= 0)
		return "the devices are being handed over already";
	/* What can fail is tried before anybody is disconnected: a directory, room, all parts. */
	if (parts_save_all(directory) != 0)
		return "not every device can be saved there, nothing has changed";
	if (request.asked == TO_PREPARE)
		return NULL;
	if (meeting_open(&offer, directory) != 0)
		return "there is no such directory, nothing has changed";
	if (!taker_lives()) {
		close(offer.fd);
		offer.fd = -1;
		return "who asked has ended, nothing has changed";
	}
	serving_suspend();
	parts_remove_all(directory);
	fd = parts_save_all(directory) == 0 && parts_release_all() == 0 ? create(&offer, OFFER) :
									  -1;
	if (fd < 0) {
		take_back("the devices cannot be handed over");
		return "not every device could be saved, they are served as before";
	}
	close(fd);
	offer_until = now_ms() + OFFER_MS;
	printf("vfn-vhost: handed over to %s\n", directory);
	return NULL;
}

/* May the process end? */
static bool
offer_taken(void)
{
	const char *why;

	if (has(&offer, TAKEN))
		return true;
	if (!taker_lives())
		why = "the process that asked has ended";
	else if (now_ms() >= offer_until)
		why = "nobody has taken the devices in time";
	else
		return false;
	/* Without an offer, and not taken, there is nothing left that anybody could take. */
	if (renameat(offer.fd, OFFER, offer.fd, WITHDRAWN) != 0 && has(&offer, TAKEN))
		return true;
	take_back(why);
	return false;
}

bool
handover_run(void)
{
	eventfd_t count;

	eventfd_read(request_fd, &count);
	pthread_mutex_lock(&request.lock);
	if (request.asked != NOTHING) {
		request.begun = true;
		pthread_mutex_unlock(&request.lock);
		request.error = hand_over(request.directory);
		pthread_mutex_lock(&request.lock);
		request.asked = NOTHING;
		pthread_cond_broadcast(&request.done);
	}
	pthread_mutex_unlock(&request.lock);
	return offer.fd >= 0 && offer_taken();
}

int
handover_timeout(void)
{
	return offer.fd >= 0 ? LOOK_MS : -1;
}

/* ---- the new process ---- */

static struct {
	int fd; /* of the telemetry socket, -1: there is no old process */
	int lock_fd;
	struct meeting at;
} other = {.fd = -1, .lock_fd = -1, .at.fd = -1};

/* The other one's runtime directory is beside ours. */
static int
connect_to(const char *file_prefix)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	const char *own = rte_eal_get_runtime_dir(), *end = strrchr(own, '/');
	int fd, n;

	n = snprintf(un.sun_path, sizeof(un.sun_path), "%.*s/%s/dpdk_telemetry.v2",
		(int)(end != NULL ? end - own : 0), own, file_prefix);
	if (n < 0 || (size_t)n >= sizeof(un.sun_path)) {
		report("the telemetry socket of %s has too long a path", file_prefix);
		return -1;
	}
	/* It would wait for ever for a process that is stopped, once its backlog is full. */
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		report("cannot take over from %s: %s: %s", file_prefix, un.sun_path,
			strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	return fd;
}

/* An answer, or false: none in time, or a signal says to end. */
static bool
receive(int sigfd, char *text, size_t size)
{
	struct pollfd fds[] = {{.fd = other.fd, .events = POLLIN}, {.fd = sigfd, .events = POLLIN}};
	int64_t end = now_ms() + ANSWER_MS, left;
	ssize_t n;

	while ((left = end - now_ms()) > 0) {
		if (poll(fds, 2, left) <= 0)
			continue;
		if (fds[1].revents != 0) {
			snprintf(text, size, "told to end meanwhile");
			return false;
		}
		n = recv(other.fd, text, size - 1, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		text[n > 0 ? n : 0] = '\0';
		return n > 0;
	}
	snprintf(text, size, "no answer in time");
	return false;
}

static bool
ask(int sigfd, const char *command)
{
	char text[PATH_MAX + 64];
	int n = snprintf(text, sizeof(text), "%s,%s", command, other.at.path);

	if (send(other.fd, text, n, MSG_NOSIGNAL) == n && receive(sigfd, text, sizeof(text)) &&
		strstr(text, "\"complete\"") != NULL)
		return true;
	report("%s: %s", command, text);
	return false;
}

/* Telemetry says first what it is. */
static bool
greeted(int sigfd)
{
	char text[1024] = "";

	if (receive(sigfd, text, sizeof(text)))
		return true;
	report("telemetry: %s", text);
	return false;
}

/* Parts that are of none of our devices would be lost with its guest. */
static bool
all_known(void)
{
	DIR *dir = opendir(other.at.path);
	struct dirent *entry;
	bool known = dir != NULL;

	while (known && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || rte_vdpa_find_device_by_name(entry->d_name) != NULL)
			continue;
		report("%s of the other process is not among the devices here", entry->d_name);
		known = false;
	}
	if (dir != NULL)
		closedir(dir);
	return known;
}

/* The other process serves on, or does so again. */
static void
give_up(void)
{
	if (other.at.fd >= 0) {
		parts_remove_all(other.at.path);
		meeting_end(&other.at);
	}
	if (other.lock_fd >= 0)
		close(other.lock_fd);
	if (other.fd >= 0)
		close(other.fd);
	other.fd = other.lock_fd = -1;
}

static int
meet(void)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/take-over.XXXXXX", rte_eal_get_runtime_dir());
	if (mkdtemp(path) == NULL || /* mode 0700 */
		meeting_open(&other.at, path) != 0 ||
		(other.lock_fd = create(&other.at, LOCK)) < 0 ||
		flock(other.lock_fd, LOCK_EX | LOCK_NB) != 0) {
		report("cannot make %s: %s", path, strerror(errno));
		return -1;
	}
	return 0;
}

int
take_over(const char *file_prefix, int sigfd)
{
	other.fd = connect_to(file_prefix);
	if (other.fd < 0)
		return -1;
	if (meet() != 0 || !greeted(sigfd) || !ask(sigfd, PREPARE) || !all_known() ||
		parts_load_all(other.at.path) != 0 || !ask(sigfd, HAND_OVER) ||
		parts_load_all(other.at.path) != 0) {
		report("%s is not replaced, it serves on", file_prefix);
		give_up();
		return -1;
	}
	return other.fd;
}

int
take_over_commit(void)
{
	parts_remove_all(other.at.path);
	if (renameat(other.at.fd, OFFER, other.at.fd, TAKEN) == 0)
		return 0;
	report("it took too long here: the other process serves again");
	give_up();
	return -1;
}

void
taken_over(void)
{
	meeting_end(&other.at);
	close(other.lock_fd);
	close(other.fd);
	other.fd = other.lock_fd = -1;
}
