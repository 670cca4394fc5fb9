// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * The driver edu on QEMU's device: a page goes to it and comes back, whatever happens meanwhile.
 *
 * Usage: edu_test SPEC ROUNDS   ("edu", 1000): on all the devices of the machine at once, ROUNDS of
 * each page there and back between them, then one thing after the other on one device.
 */
#include <errno.h>
#include <glob.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "pages.h"

static const char *spec;

/* of all that the driver has asked for, since the machine began */
static unsigned long interrupts(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	unsigned long n = 0;
	char line[512], *p;

	while (f && fgets(line, sizeof(line), f)) {
		if (!strstr(line, "balun-edu"))
			continue;
		for (p = strchr(line, ':') + 1; *p == ' ' || (*p >= '0' && *p <= '9');)
			n += strtoul(p, &p, 10), p += strspn(p, " ");
	}
	if (f)
		fclose(f);
	return n;
}

/* ---- one device ---- */

static void there_and_back(void)
{
	struct balun_device *dev = begin_with(spec);
	struct balun_device_info info = { .size = sizeof(info) };
	unsigned long before;

	CHECK(dev);
	before = interrupts();
	fill(page(0), 1);
	CHECK(move(page(0), dev));
	CHECK(away(page(0)));
	CHECK(!balun_device_info(dev, &info) && info.mem_total == PAGE && info.mem_used == PAGE);
	CHECK(interrupts() > before);
	before = interrupts();
	CHECK(holds(page(0), 1));
	CHECK(!away(page(0)));
	CHECK(interrupts() > before);
	CHECK(!balun_device_close(dev));
	CHECK(holds(page(0), 1));
}

static void a_second_page_evicts_the_first(void)
{
	struct balun_device *dev = begin_with(spec);
	unsigned int i;

	CHECK(dev);
	for (i = 0; i < PAGES; i++)
		fill(page(i), 10 + i);
	for (i = 0; i < PAGES; i++) {
		CHECK(move(page(i), dev));
		CHECK(away(page(i)) && (!i || !away(page(i - 1))));
	}
	for (i = 0; i < PAGES; i++)
		CHECK(holds(page(i), 10 + i));
	CHECK(!balun_device_close(dev));
}

static void untouched_memory_is_zero(void)
{
	struct balun_device *dev = begin_with(spec);
	unsigned int i;

	CHECK(dev);
	fill(page(0), 20);
	CHECK(move(page(0), dev)); /* the device has something else before */
	CHECK(!madvise(page(1), PAGE, MADV_DONTNEED));
	CHECK(move(page(1), dev));
	CHECK(away(page(1)));
	for (i = 0; i < PAGE; i++)
		CHECK(!page(1)[i]);
	CHECK(holds(page(0), 20));
	CHECK(!balun_device_close(dev));
}

static void a_child_has_its_bytes(void)
{
	struct balun_device *dev = begin_with(spec);
	int status = -1;
	pid_t pid;

	CHECK(dev);
	fill(page(0), 30);
	CHECK(move(page(0), dev));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		bool right = holds(page(0), 30);

		fill(page(0), 31);
		_exit(right && holds(page(0), 31) ? 0 : 1);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(holds(page(0), 30));
	CHECK(!balun_device_close(dev));
}

static void close_brings_it_home(void)
{
	struct balun_device *dev = begin_with(spec);

	CHECK(dev);
	fill(page(0), 40);
	CHECK(move(page(0), dev));
	CHECK(!balun_device_close(dev));
	CHECK(!away(page(0)));
	CHECK(holds(page(0), 40));
}

static void at_its_end_a_program_leaves_it(void)
{
	struct balun_device *dev;
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };

		fill(page(0), 45);
		_exit(balun_space_create(&opts, &space) || !(dev = begin_with(spec)) ||
		      !move(page(0), dev));
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	dev = begin_with(spec);
	CHECK(dev);
	CHECK(!balun_device_close(dev));
}

/* @op fails each second time: what should have left stays, what should have come comes later */
static void fails(const char *op)
{
	struct balun_device *dev;
	unsigned int i, moved = 0, stayed = 0;
	char s[128];

	snprintf(s, sizeof(s), "inject(%s):op=%s,every=2", spec, op);
	dev = begin_with(s);
	CHECK(dev);
	for (i = 0; i < 6; i++) {
		fill(page(0), 50 + i);
		if (move(page(0), dev))
			moved++;
		else
			stayed++;
		CHECK(holds(page(0), 50 + i));
	}
	printf("%s: %u moved, %u stayed\n", s, moved, stayed);
	CHECK(moved && stayed);
	CHECK(!balun_device_close(dev));
}

static void failing_copies_lose_nothing(void)
{
	fails("copy");
	fails("copy_wait");
}

/* through memory that is not contiguous */
static void to_another_device(void)
{
	struct balun_device *dev = begin_with(spec), *ram = begin_with("ram:mem=2M");

	CHECK(dev && ram);
	fill(page(0), 60);
	CHECK(move(page(0), dev));
	CHECK(move(page(0), ram));
	CHECK(move(page(0), dev));
	CHECK(away(page(0)));
	CHECK(holds(page(0), 60));
	CHECK(!balun_device_close(ram));
	CHECK(!balun_device_close(dev));
}

static void refused(const char *s, int err, const char *word)
{
	struct balun_device *dev;
	int e = balun_device_open(space, s, &dev);

	printf("%s: %d %s\n", s, e, balun_reason());
	CHECK(e == err);
	CHECK(strstr(balun_reason(), word));
}

static void wrong_options(void)
{
	char s[128];

	refused("edu:dma_bits=12", -EINVAL, "28 to 64");
	snprintf(s, sizeof(s), "%s%cmem=4K", spec, strchr(spec, ':') ? ',' : ':');
	refused(s, -EINVAL, "mem");
}

/* how many devices the driver has; the first one's name in sysfs */
static size_t devices(char *ret_first, size_t size)
{
	size_t n = 0;
	glob_t g;

	if (!glob("/sys/bus/pci/drivers/balun-edu/*:*", 0, NULL, &g)) {
		n = g.gl_pathc;
		snprintf(ret_first, size, "%s", g.gl_pathv[0]);
	}
	globfree(&g);
	return n;
}

/* that waits for the program that has the device, and the program does not notice */
static void taken_out_of_the_machine(void)
{
	struct balun_device *dev = begin_with(spec); /* the first one */
	char name[128], path[160];
	size_t n = devices(name, sizeof(name));
	pid_t pid;

	CHECK(dev && n);
	fill(page(0), 70);
	CHECK(move(page(0), dev));
	snprintf(path, sizeof(path), "%s/remove", name);
	pid = sysfs(path, "1");
	while (!access(name, F_OK)) /* the driver has been asked when that is gone */
		usleep(1000);
	CHECK(holds(page(0), 70));
	CHECK(move(page(0), dev));
	CHECK(waitpid(pid, NULL, WNOHANG) == 0);
	CHECK(!balun_device_close(dev));
	CHECK(holds(page(0), 70));
	CHECK(ended(pid));
	CHECK(devices(path, sizeof(path)) == n - 1);
	if (n == 1)
		refused(spec, -ENODEV, "no such device");
	CHECK(ended(sysfs("/sys/bus/pci/rescan", "1")));
	CHECK(devices(path, sizeof(path)) == n);
	there_and_back();
}

/* ---- all of them ---- */

struct worker {
	pthread_t thread;
	struct balun_device *dev;
	unsigned char *page;
	unsigned int first, rounds;
	bool right;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned int i;

	for (i = 0; w->right && i < w->rounds; i++) {
		fill(w->page, w->first + i);
		w->right = move(w->page, w->dev) && holds(w->page, w->first + i);
	}
	return NULL;
}

static void all_devices(unsigned int rounds)
{
	struct worker w[BALUN_MAX_DEVICES];
	unsigned int n = 0, i;
	unsigned long before;
	char *area;

	while (n < BALUN_MAX_DEVICES && !balun_device_open(space, spec, &w[n].dev))
		n++;
	CHECK(n && n < BALUN_MAX_DEVICES);
	printf("%u devices, then: %s\n", n, balun_reason());
	/* all of them are in use: not for us again, not for another space */
	refused(spec, -EBUSY, "in use");
	area = mmap(NULL, n * BALUN_BLOCK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	CHECK(area != MAP_FAILED);
	before = interrupts();
	for (i = 0; i < n; i++) {
		w[i].page = (unsigned char *)area + i * BALUN_BLOCK_SIZE;
		w[i].rounds = rounds / n + 1;
		w[i].first = 1000 + i * w[i].rounds;
		w[i].right = true;
		CHECK(!pthread_create(&w[i].thread, NULL, work, &w[i]));
	}
	for (i = 0; i < n; i++)
		pthread_join(w[i].thread, NULL);
	printf("%u rounds, %lu interrupts\n", n * w[0].rounds, interrupts() - before);
	for (i = 0; i < n; i++)
		CHECK(w[i].right);
	CHECK(interrupts() - before >= 2 * rounds);
	for (i = 0; i < n; i++)
		CHECK(!balun_device_close(w[i].dev));
	CHECK(!munmap(area, n * BALUN_BLOCK_SIZE));
}

static void in_use_by_another_program(void)
{
	struct balun_device *all[BALUN_MAX_DEVICES];
	unsigned int n = 0;
	pid_t pid;

	while (n < BALUN_MAX_DEVICES && !balun_device_open(space, spec, &all[n]))
		n++;
	CHECK(n && n < BALUN_MAX_DEVICES);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		struct balun_space_opts opts = { .size = sizeof(opts), .engine = "kernel" };

		if (balun_space_create(&opts, &space))
			_exit(1);
		failed = 0;
		refused(spec, -EBUSY, "in use");
		fflush(stdout);
		_exit(failed != 0);
	}
	CHECK(ended(pid));
	while (n)
		CHECK(!balun_device_close(all[--n]));
}

static unsigned int rounds;

static void rounds_on_all_devices(void)
{
	all_devices(rounds);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	spec = argv[1];
	rounds = atoi(argv[2]);
	if (!begin())
		return 1;
#define RUN(fn) run(#fn, fn)
	RUN(there_and_back);
	RUN(a_second_page_evicts_the_first);
	RUN(untouched_memory_is_zero);
	RUN(a_child_has_its_bytes);
	RUN(close_brings_it_home);
	RUN(at_its_end_a_program_leaves_it);
	RUN(failing_copies_lose_nothing);
	RUN(to_another_device);
	RUN(wrong_options);
	RUN(in_use_by_another_program);
	RUN(rounds_on_all_devices);
	RUN(taken_out_of_the_machine);
	return end();
}
