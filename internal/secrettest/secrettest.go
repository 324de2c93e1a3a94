// Package secrettest finds secrets in texts that are not to show them, for tests.
package secrettest

import "strings"

// Shown is the length in bytes of the longest part of a secret that a text shows.
func Shown(text, secret string) (most int) {
	for i := range secret {
		for j := i + most + 1; j <= len(secret) && strings.Contains(text, secret[i:j]); j++ {
			most = j - i
		}
	}
	return most
}
