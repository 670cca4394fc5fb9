#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR MIT
#
# sqlite3 makes a database of 200 MB (a share: 20 MB), changes it, checks it; what it says of the
# content must be the same as without Balun, and so must the file.
# Usage: tests/programs/sqlite.sh
cd "$(dirname "$0")/../.." || exit 1
. tests/programs/lib.sh

rows=${share:+30000}
rows=${rows:-330000}

# rows of about 600 bytes; nothing random, and the page cache is memory of its own
cat >"$tmp/make.sql" <<END
PRAGMA cache_size = -65536;
PRAGMA temp_store = MEMORY;
CREATE TABLE item (id INTEGER PRIMARY KEY, word TEXT, n INTEGER, data BLOB);
WITH RECURSIVE seq(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM seq WHERE i < $rows)
	INSERT INTO item SELECT i, printf('%08x', i * 2654435761 % 4294967296), i * 7919 % 10007,
		CAST(substr(replace(hex(zeroblob(150)), '00', printf('%x', i * 40503 % 65536)), 1, 560) AS BLOB)
	FROM seq;
CREATE INDEX item_word ON item (word);
CREATE INDEX item_n ON item (n, id);
UPDATE item SET n = n + 1, data = data || word WHERE id % 3 = 0;
DELETE FROM item WHERE id % 11 = 0;
BEGIN;
INSERT INTO item (word, n, data) SELECT word, n, data FROM item WHERE id % 5 = 0;
ROLLBACK;
END
cat >"$tmp/look.sql" <<'END'
PRAGMA cache_size = -65536;
PRAGMA temp_store = MEMORY;
PRAGMA integrity_check;
SELECT count(*), sum(n), sum(length(data)), min(word), max(word) FROM item;
SELECT n % 13, count(*), sum(id) FROM item GROUP BY 1 ORDER BY 1;
SELECT a.id, b.id FROM item a JOIN item b ON a.word < b.word AND b.n = a.n AND a.id % 997 = 1 ORDER BY a.word, b.id LIMIT 50;
SELECT word FROM item ORDER BY data DESC, word LIMIT 50;
VACUUM;
PRAGMA integrity_check;
.sha3sum
END
cat >"$tmp/job.sh" <<'END'
rm -f db
sqlite3 db <make.sql && sqlite3 db <look.sql && sha256sum <db && wc -c <db
END
cd "$tmp" || exit 1
same sqlite3 1800 sh job.sh
[ -n "$share" ] || [ "$(stat -c %s db)" -gt 200000000 ] || fail "sqlite3: the database has only $(stat -c %s db) bytes"
finish
