package integration

import (
	"iter"
	"strings"
)

// lines goes through the lines of a text that are not empty.
func lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for line := range strings.Lines(text) {
			if line = strings.TrimRight(line, "\n"); line != "" && !yield(line) {
				return
			}
		}
	}
}

// containsLine says whether some line of the text contains the part.
func containsLine(text, part string) bool {
	for line := range lines(text) {
		if strings.Contains(line, part) {
			return true
		}
	}
	return false
}
