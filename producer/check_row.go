package producer

import "github.com/exhume/exhume/schemas"

// CheckRow says what a row of a manifest with these fields asks for, or why it
// cannot be asked for: what Manifest.Check finds out about a row by itself. Of
// the options, Actor and Root count.
func CheckRow(o ManifestOptions, tombstone, output, actor string) (schemas.Request, error) {
	m := Manifest{opts: o}
	return m.request(&record{tombstone: tombstone, output: output, actor: actor})
}
