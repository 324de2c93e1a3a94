// Package failpoint lets tests kill the program at a chosen step of its work, as a
// power cut would. It does nothing unless the program is built with the tag
// failpoints.
package failpoint
