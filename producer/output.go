package producer

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// What the system allows, in bytes.
const (
	maxComponent = 255
	maxPath      = 4095
)

// reserved begins the names of the restorer's temporary files.
const reserved = ".exhume-"

// cleanOutput makes a row's output a clean path relative to the root, or says
// why nothing can be restored there. It looks at the names alone, never at the
// file system. Slashes separate; a backslash is a character like others.
func cleanOutput(root, output string) (string, error) {
	if !utf8.ValidString(output) {
		return "", fmt.Errorf("output %s is not valid UTF-8", quote(output))
	}
	if c, found := control(output); found {
		return "", fmt.Errorf("output %s contains the control character %U", quote(output), c)
	}
	switch output[strings.LastIndexByte(output, '/')+1:] {
	case "", ".", "..":
		return "", fmt.Errorf("output %s names a directory, not a file", quote(output))
	}
	clean := path.Clean(output)
	prefix := strings.TrimSuffix(root, "/") + "/"
	if path.IsAbs(clean) {
		below, ok := strings.CutPrefix(clean, prefix)
		if !ok {
			return "", fmt.Errorf("output %s is outside the root %s", quote(output), root)
		}
		clean = below
	}
	if strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("output %s leaves the root %s", quote(output), root)
	}
	if err := checkNames(clean); err != nil {
		return "", fmt.Errorf("output %s %w", quote(output), err)
	}
	if full := len(prefix) + len(clean); full > maxPath {
		return "", fmt.Errorf("output %s is too long: %d bytes with the root, the system allows %d", quote(output), full, maxPath)
	}
	return clean, nil
}

// checkNames looks at each component of a clean, relative path.
func checkNames(clean string) error {
	for name := range strings.SplitSeq(clean, "/") {
		if len(name) > maxComponent {
			return fmt.Errorf("has a name of %d bytes, the system allows %d", len(name), maxComponent)
		}
		if strings.HasPrefix(name, reserved) {
			return errors.New(`has a name that begins with "` + reserved + `", which is reserved for temporary files`)
		}
	}
	return nil
}
