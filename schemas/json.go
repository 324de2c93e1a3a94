package schemas

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.schema.json
var files embed.FS

// JSONSchemas lists the names of the JSON Schemas (draft 2020-12), sorted.
func JSONSchemas() []string {
	paths, _ := fs.Glob(files, "*.schema.json") // the pattern is well-formed
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(p, ".schema.json")
	}
	return paths
}

// JSONSchema gives one JSON Schema, or fs.ErrNotExist.
func JSONSchema(name string) ([]byte, error) { return files.ReadFile(name + ".schema.json") }

//go:embed asyncapi.json
var asyncAPI []byte

// AsyncAPI gives the AsyncAPI 3 document of all messages. Its payloads refer to
// the JSON Schemas beside it.
func AsyncAPI() []byte { return asyncAPI }
