package app

import (
	"math"
	"strings"
)

// nearestKey is the known key that was probably meant, empty if none is close.
// A key that is known in another section is close.
func nearestKey(key string, known []string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	near, distance := nearestName(key, known)
	if distance <= (len(last)+2)/3 {
		return near
	}
	for _, k := range known {
		if strings.HasSuffix(k, "."+last) {
			return k
		}
	}
	return ""
}

// nearestVariable is the known variable most like the name. The beginning that
// most variables share does not count.
func nearestVariable(name string, known []string) string {
	tails := make([]string, len(known))
	whole := map[string]string{}
	for i, k := range known {
		tails[i] = variableTail(k)
		whole[tails[i]] = k
	}
	near, _ := nearestName(variableTail(name), tails)
	return whole[near]
}

func variableTail(name string) string {
	for _, prefix := range []string{"CODEX_ARCHIVE_", "CODEX_", "EXHUME_"} {
		if tail, ok := strings.CutPrefix(name, prefix); ok {
			return tail
		}
	}
	return name
}

// nearestName is the first of the known names at the least edit distance.
func nearestName(name string, known []string) (near string, distance int) {
	distance = math.MaxInt
	name = name[:min(len(name), 64)]
	for _, k := range known {
		if d := editDistance(name, k); d < distance {
			near, distance = k, d
		}
	}
	return near, distance
}

// editDistance is the number of bytes to insert, delete or replace to turn a
// into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to every b[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
