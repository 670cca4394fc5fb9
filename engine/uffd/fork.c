// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * fork: the child gets every byte and depends on nobody.
 *
 * fork() runs handlers: before it everything comes home and no page leaves until it is over, so the
 * child's memory is complete the moment it exists, even if the parent dies in that moment. A bare
 * clone() runs none; its event hands us the child's context, and what is away is copied into the
 * child before that is let go (needs CAP_SYS_PTRACE; the parent goes on at the read, so here alone
 * the child depends on it for that long).
 */
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/uffd/uffd.h"

/* between the handlers of one fork, all on one thread */
static __thread uint64_t prepare_cookie[8];

static void fork_prepare(void)
{
	struct uffd *u = env_load(&uffd_current);

	if (!u)
		return;
	uffd_enter(u, prepare_cookie);
	if (core_quiesce(u->space))
		env_log(0, "fork: pages of a failed device are lost to the child too");
	frames_shrink(u);
}

static void fork_parent(void)
{
	struct uffd *u = env_load(&uffd_current);

	if (!u)
		return;
	core_resume(u->space);
	uffd_leave(u, prepare_cookie);
}

/* The parent's engine is a copy nobody runs: its memory stays as it is, its context is closed. */
static void fork_child(void)
{
	struct uffd *u = env_load(&uffd_current);

	if (!u)
		return;
	close(u->caps.fd);
	close(u->stop_fd);
	maps_close();
	env_store(&uffd_current, NULL);
	uffd_leave(u, prepare_cookie);
}

static void register_once(void)
{
	pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void uffd_fork_register(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, register_once);
}

static void child_copy(int fd, uint64_t va, const void *src, uint64_t len)
{
	struct uffdio_copy c = { .dst = va, .src = (uintptr_t)src, .len = len };

	if (ioctl(fd, UFFDIO_COPY, &c) && errno != EEXIST)
		env_log(0, "clone: page 0x%llx is missing in the child: %s", (unsigned long long)va,
			strerror(errno));
}

/*
 * On the reader, lock held: nothing that is away changes meanwhile (core_read_device() needs no
 * lock of ours). What is in transit cannot be waited for, since its commit may need this very event
 * to be over: a child made by a bare clone() in the middle of a migration lacks such pages, which
 * is logged. fork() has no such moment.
 */
void uffd_fill_child(struct uffd *u, int child_fd)
{
	void *buf = env_pages_alloc(BLOCK);
	struct softpt_run r;
	uint64_t va = 0;

	if (!buf || softpt_next_busy(u->pt, 0, 1ULL << SOFTPT_VA_BITS, &r))
		env_log(0, "clone: the child lacks pages that are in transit");
	while (buf && softpt_next_away(u->pt, va, 1ULL << SOFTPT_VA_BITS, &r)) {
		uint64_t len = ENV_MIN(r.len, BLOCK);

		if (uffd_is_coherent(u, SOFTPT_DEV(r.place)))
			len = PAGE;
		va = r.va + len;
		/* mapped coherent memory the child has already, as any other */
		if (uffd_is_coherent(u, SOFTPT_DEV(r.place)) && !uffd_is_held(u, r.place))
			continue;
		if (core_read_device(u->space, SOFTPT_DEV(r.place),
				     (uint64_t)SOFTPT_PGNO(r.place) << BALUN_PAGE_SHIFT, buf, len))
			env_log(0, "clone: a device does not give the child its pages");
		else
			child_copy(child_fd, r.va, buf, len);
	}
	if (buf)
		env_pages_free(buf, BLOCK);
	close(child_fd); /* the child's ranges are not watched any more; who waits there goes on */
}
