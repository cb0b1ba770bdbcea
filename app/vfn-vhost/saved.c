/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Devices in files, as their parts. Saving and restoring is not among the operations of a vDPA
 * driver: the functions are looked up in the library that holds the driver of the device, so that
 * this program is linked with no driver. Runs on the main thread.
 */

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_dev.h>

#include "app.h"

typedef int (*state_function)(const char *device, const char *path);

bool
driver_function(struct rte_vdpa_device *dev, const char *name, void *function, size_t size)
{
	const struct rte_driver *driver = rte_dev_driver(rte_vdpa_get_rte_device(dev));
	void *library, *symbol;
	Dl_info info;

	memset(function, 0, size);
	if (dladdr(driver, &info) == 0)
		return false;
	/* It is loaded: this only finds it. */
	library = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
	if (library == NULL)
		return false;
	symbol = dlsym(library, name);
	memcpy(function, &symbol, size);
	dlclose(library);
	return symbol != NULL;
}

static int
call(struct rte_vdpa_device *dev, const char *name, const char *what, const char *path)
{
	state_function function;
	bool found = driver_function(dev, name, &function, sizeof(function));
	int ret = found ? function(vdpa_name(dev), path) : -ENOTSUP;

	if (!found)
		report("the driver of %s saves nothing", vdpa_name(dev));
	else if (ret < 0)
		report("%s: cannot %s %s: %s", vdpa_name(dev), what, path != NULL ? path : "",
			strerror(-ret));
	return ret < 0 ? -1 : 0;
}

int
parts_save(struct rte_vdpa_device *dev, const char *path)
{
	return call(dev, "rte_vdpa_vfn_snapshot", "save its parts to", path);
}

int
parts_load(struct rte_vdpa_device *dev, const char *path)
{
	return call(dev, "rte_vdpa_vfn_restore", "restore its parts from", path);
}

/* Of every device the file in the directory that has its name. */
static int
for_each(const char *directory, int (*what)(struct rte_vdpa_device *, const char *))
{
	struct rte_dev_iterator it;
	struct rte_device *dev;
	char path[PATH_MAX];
	int ret = 0;

	RTE_DEV_FOREACH(dev, VDPA_DEVICES, &it) {
		snprintf(path, sizeof(path), "%s/%s", directory, rte_dev_name(dev));
		if (what(rte_vdpa_find_device_by_name(rte_dev_name(dev)), path) != 0)
			ret = -1;
	}
	return ret;
}

int
parts_save_all(const char *directory)
{
	return for_each(directory, parts_save);
}

static int
load(struct rte_vdpa_device *dev, const char *path)
{
	if (access(path, F_OK) == 0 || errno != ENOENT)
		return parts_load(dev, path);
	report("%s: there are no parts of it at %s, it starts anew", vdpa_name(dev), path);
	return 0;
}

int
parts_load_all(const char *directory)
{
	struct stat st;

	if (stat(directory, &st) != 0) {
		report("cannot restore from %s: %s", directory, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode)) {
		report("cannot restore from %s: not a directory", directory);
		return -1;
	}
	return for_each(directory, load);
}

static int
remove_state(struct rte_vdpa_device *dev, const char *path)
{
	(void)dev;
	unlink(path);
	return 0;
}

void
parts_remove_all(const char *directory)
{
	for_each(directory, remove_state);
}

static int
release(struct rte_vdpa_device *dev, const char *path)
{
	(void)path;
	return call(dev, "rte_vdpa_vfn_release", "leave its function to another process", NULL);
}

int
parts_release_all(void)
{
	return for_each("", release);
}

static int
resume(struct rte_vdpa_device *dev, const char *path)
{
	(void)path;
	return call(dev, "rte_vdpa_vfn_restore", "go on where it was", NULL);
}

int
parts_resume_all(void)
{
	return for_each("", resume);
}
