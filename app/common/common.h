/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the programs that serve functions on sockets share. Everything here is called on the main
 * thread.
 */

#ifndef VFN_APP_COMMON_H
#define VFN_APP_COMMON_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/** Name of the program, for its messages, and the text of --help; each has its own. */
extern const char program[], usage[];

enum exit_code {
	EXIT_OK = 0,
	EXIT_RUNTIME = 1, /**< EAL or a socket failed */
	EXIT_USAGE = 2,	  /**< the command line is wrong */
};

#define report(...)	  report_(__VA_ARGS__, "")
#define report_(fmt, ...) fprintf(stderr, "%s: " fmt "%s\n", program, __VA_ARGS__)

/**
 * Let nobody wait for whoever reads standard output and standard error. With `log` what DPDK's
 * libraries say goes there too, each message with the time.
 */
void output_init(bool log);

/** --help and --version: tell, and end the program. */
void show_help(void) __attribute__((noreturn));
void show_version(void) __attribute__((noreturn));

/** Where "--" is, behind EAL's options, or argc. Does --help and --version before that. */
int options_split(int argc, char **argv);

/** Values of long options, from here on: not characters, so that optopt tells them from short ones.
 */
#define OPTION_LONG 256

/** getopt_long() has returned what is no option, or ':': tell, and end the program. opterr is 0. */
void option_wrong(int opt, char **argv) __attribute__((noreturn));

/** Nothing may be left behind the options: else tell, and end the program. */
void options_end(int argc, char **argv);

/** An EAL option, before "--": is it given? */
bool is_given(int argc, char **argv, const char *option);

/** Open what is closed of the three: else a socket would get its number, and be printed to. */
void open_standard_fds(void);

/**
 * Have a descriptor that is readable once the program is told to end: what would end the process at
 * once ends it in order; but for what nohup ignores. Before there are other threads: they inherit
 * the mask. -1: reported.
 */
int ending_signals(void);

/** EAL has logged what failed: say what usually helps. */
void report_eal_failure(int err);

/** A socket, of our own or somebody else's. */
struct socket_spec {
	char path[PATH_MAX];
	mode_t mode; /**< 0: as umask says */
	uid_t uid;   /**< -1: ours, like gid */
	gid_t gid;
};

/** An octal mode; false: it is none. */
bool parse_mode(const char *text, mode_t *mode);

/** USER, USER:GROUP or :GROUP, by name or number; false: there is none like that. */
bool parse_owner(const char *text, uid_t *uid, gid_t *gid);

/** Understand the NAME[:GROUP] of --user. 0, or -1 with the reason reported. */
int user_find(const char *spec);

/** Give a file to the user of --user, if there is one. 0, or -1 with the reason reported. */
int user_give(const char *path);

/** Give up new privileges, before there are other threads: each has its own. 0, or -1: reported. */
int confine_early(bool no_confine);

/**
 * Become the user of --user, and give up what a running server has no use for. For all threads, and
 * for good.
 *
 * @return
 *   0, or -1 with the reason reported.
 */
int confine(bool no_confine);

/** Leave only the system calls of a running server. 0, 1: built without libseccomp, or -errno. */
int seccomp_install(void);

/** Whether a socket address can hold the path; reported when not. */
bool socket_path_fits(const char *path);

/** A listening socket and where it is. */
struct listener {
	int fd; /**< -1: none */
	dev_t dev;
	ino_t ino;
};

/**
 * Listen on a socket: a stale one there is removed, anything else in the way is reported.
 *
 * @return
 *   0, or -1 with the reason reported.
 */
int socket_listen(const struct socket_spec *sock, struct listener *listener);

/** Remove the socket from its path, unless somebody else's is there by now. */
void socket_remove(const char *path, const struct listener *listener);

#endif /* VFN_APP_COMMON_H */
