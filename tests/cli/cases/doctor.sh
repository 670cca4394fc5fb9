# SPDX-License-Identifier: GPL-2.0-only OR MIT
# what is found differs by machine; the shape does not, and the exit code follows from it
"$BUILD/balun" doctor >"$BUILD/doctor.out" 2>&1
rc=$?
"$BUILD/balun" doctor --json >"$BUILD/doctor.json" 2>&1
[ $? -eq $rc ] && echo "both forms agree in the exit code"
case $rc in
0) grep -q '^Memory of real processes can be on devices here' "$BUILD/doctor.out" ;;
3) grep -q '^Only the simulator works here' "$BUILD/doctor.out" ;;
*) false ;;
esac && echo "the last line says what the exit code says"
for what in 'engine uffd' 'engine sim' kernel processors memory vm.unprivileged_userfaultfd \
	/dev/userfaultfd capabilities seccomp 'huge pages'; do
	grep -qE "^(ok|note|NO) +$what " "$BUILD/doctor.out" && grep -qF "\"what\": \"$what\"" "$BUILD/doctor.json" &&
		echo "$what"
done
grep -oE '^ok +engine sim +works' "$BUILD/doctor.out" | tr -s ' '
awk '/^NO / { no = 1; next } /^      do: / { no = 0 } /^[a-z]/ && no { print "no remedy for what does not work"; no = 0 }' \
	"$BUILD/doctor.out"
if command -v python3 >/dev/null; then
	python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$BUILD/doctor.json" || echo "not JSON"
fi
rm -f "$BUILD/doctor.out" "$BUILD/doctor.json"
