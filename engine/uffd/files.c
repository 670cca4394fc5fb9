// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Descriptors that are not the program's. Whoever makes a space may first give itself a table of
 * descriptors of its own (CLOSE_RANGE_UNSHARE). Then the engine's descriptors, and those of
 * drivers, are in that table, as the service threads are: the program, which may close or count
 * what it finds, finds none. But then its threads cannot use them. They need to in fork() only,
 * where everything comes home: there a thread of ours does it for them. And the child has not
 * inherited them.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

struct uffd_files {
	struct env_thread *thread;
	struct env_cond changed;
	bool asked, ending; /* under u->lock */
	int err;
};

/* does /proc/self/fd, the first thread's table, have what the calling thread has? */
static bool is_own(void)
{
	char name[48], path[32], link[80] = "";
	int fd;

	/* a name that no other file has, and the link says it */
	snprintf(name, sizeof(name), "balun-%d-%llx", getpid(), (unsigned long long)env_now_ns());
	fd = memfd_create(name, MFD_CLOEXEC);
	if (fd < 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (readlink(path, link, sizeof(link) - 1) < 0)
		link[0] = 0;
	close(fd);
	return !strstr(link, name);
}

static void files_main(void *arg)
{
	struct uffd *u = arg;
	struct uffd_files *f = u->files;
	int err;

	env_mutex_lock(&u->lock);
	while (!f->ending) {
		if (!f->asked) {
			env_cond_wait(&f->changed, &u->lock, ENV_FOREVER);
			continue;
		}
		env_mutex_unlock(&u->lock);
		err = core_quiesce(u->space);
		frames_shrink(u);
		env_mutex_lock(&u->lock);
		f->err = err;
		f->asked = false;
		env_cond_wake(&f->changed);
	}
	env_mutex_unlock(&u->lock);
}

int uffd_files_start(struct uffd *u)
{
	struct uffd_files *f;
	int err;

	if (!is_own())
		return 0;
	if (u->caps.user_mode_only) { /* then threads ring for the reader, inside.c */
		env_reason("%s; %s", u->caps.reason, u->caps.remedy);
		return -EOPNOTSUPP;
	}
	f = env_alloc(sizeof(*f));
	if (!f)
		return -ENOMEM;
	env_cond_init(&f->changed);
	u->files = f;
	err = env_thread_create(&f->thread, "balun-fork", files_main, u);
	if (err) {
		u->files = NULL;
		env_cond_destroy(&f->changed);
		env_free(f);
	}
	return err;
}

void uffd_files_stop(struct uffd *u)
{
	struct uffd_files *f = u->files;

	if (!f)
		return;
	env_mutex_lock(&u->lock);
	f->ending = true;
	env_cond_wake(&f->changed);
	env_mutex_unlock(&u->lock);
	env_thread_join(f->thread);
	env_cond_destroy(&f->changed);
	env_free(f);
	u->files = NULL;
}

/* One fork at a time: uffd_life is held. */
int uffd_files_quiesce(struct uffd *u)
{
	struct uffd_files *f = u->files;
	int err;

	if (!f) {
		err = core_quiesce(u->space);
		frames_shrink(u);
		return err;
	}
	env_mutex_lock(&u->lock);
	f->asked = true;
	env_cond_wake(&f->changed);
	while (f->asked)
		env_cond_wait(&f->changed, &u->lock, ENV_FOREVER);
	err = f->err;
	env_mutex_unlock(&u->lock);
	return err;
}
