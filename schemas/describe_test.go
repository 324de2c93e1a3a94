package schemas

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Every schema describes its Go type down to the last field: the same names, the
// same of them required, nothing else allowed, and the values that there are
// constants for.
func TestSchemasDescribeTypes(t *testing.T) {
	d := description{t: t, docs: map[string]node{}, values: constants(t)}
	delete(d.values, "Code") // a newer exhume has more of them
	for name, sample := range samples() {
		d.check(name, node{"$ref": name + ".schema.json"}, reflect.TypeOf(sample), name)
	}
}

// These take only some of the values of their type.
var someValues = map[string][]string{
	"batch-change.change": {string(ChangeAbort), string(ChangeCancel), string(ChangePause), string(ChangeResume)},
}

// node is a part of a schema.
type node = map[string]any

// description compares schemas with types.
type description struct {
	t      *testing.T
	docs   map[string]node     // by the schema's name
	values map[string][]string // the constants of each type of strings
}

// check compares a part of the schema doc with a type. Path says which it is.
func (d *description) check(doc string, n node, of reflect.Type, path string) {
	doc, n = d.resolve(doc, n, path)
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	kind := ""
	switch of.Kind() {
	case reflect.Struct:
		if of == reflect.TypeFor[time.Time]() {
			if kind = "string"; n["format"] != "date-time" {
				d.t.Errorf("%s: a time has the format date-time", path)
			}
			break
		}
		kind = "object"
		d.checkFields(doc, n, of, path)
	case reflect.Slice:
		if of.Elem().Kind() == reflect.Uint8 {
			if kind = "string"; n["contentEncoding"] != "base64" {
				d.t.Errorf("%s: bytes have the encoding base64", path)
			}
			break
		}
		kind = "array"
		d.check(doc, part(n, "items"), of.Elem(), path+"[]")
	case reflect.Map:
		kind = "object"
		d.check(doc, part(n, "additionalProperties"), of.Elem(), path+".*")
		if len(d.values[of.Key().Name()]) > 0 {
			d.check(doc, part(n, "propertyNames"), of.Key(), path+" keys")
		}
	case reflect.String:
		kind = "string"
		d.checkValues(n, of, path)
	case reflect.Int, reflect.Int64, reflect.Uint32:
		kind = "integer"
	case reflect.Float64:
		kind = "number"
	case reflect.Bool:
		kind = "boolean"
	default:
		d.t.Errorf("%s: %s", path, of)
	}
	if n["type"] != nil && n["type"] != kind || n["type"] == nil && n["enum"] == nil {
		d.t.Errorf("%s: type %v, want %q", path, n["type"], kind)
	}
}

func (d *description) checkFields(doc string, n node, of reflect.Type, path string) {
	properties := part(n, "properties")
	var names, required []string
	for _, f := range jsonFields(of) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
		if !strings.HasPrefix(options, "omit") {
			required = append(required, name)
		}
		d.check(doc, part(properties, name), f.Type, path+"."+name)
	}
	var has []string
	for _, r := range n["required"].([]any) {
		has = append(has, r.(string))
	}
	slices.Sort(names)
	slices.Sort(required)
	slices.Sort(has)
	if diff := cmp.Diff(names, slices.Sorted(maps.Keys(properties))); diff != "" {
		d.t.Errorf("%s: properties (-code +schema):\n%s", path, diff)
	}
	if diff := cmp.Diff(required, has); diff != "" {
		d.t.Errorf("%s: required (-code +schema):\n%s", path, diff)
	}
	if n["additionalProperties"] != false {
		d.t.Errorf("%s: other fields are allowed", path)
	}
}

// checkValues compares the values that a string may have with the constants of
// its type, if that has any.
func (d *description) checkValues(n node, of reflect.Type, path string) {
	want := d.values[of.Name()]
	if len(want) == 0 {
		return
	}
	if some, ok := someValues[path]; ok {
		want = some
	}
	var got []string
	values, _ := n["enum"].([]any)
	for _, v := range values {
		got = append(got, v.(string))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		d.t.Errorf("%s: values (-code +schema):\n%s", path, diff)
	}
}

// resolve follows references to other parts and other schemas.
func (d *description) resolve(doc string, n node, path string) (string, node) {
	for n["$ref"] != nil {
		file, pointer, _ := strings.Cut(n["$ref"].(string), "#")
		if file != "" {
			doc = strings.TrimSuffix(file, ".schema.json")
		}
		if d.docs[doc] == nil {
			text, err := JSONSchema(doc)
			if err != nil {
				d.t.Fatalf("%s: %v", path, err)
			}
			var parsed node
			if err := json.Unmarshal(text, &parsed); err != nil {
				d.t.Fatalf("%s: %v", doc, err)
			}
			d.docs[doc] = parsed
		}
		n = d.docs[doc]
		for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if step != "" {
				n = part(n, step)
			}
		}
	}
	return doc, n
}

// part is a part of a node, empty where there is none.
func part(n node, name string) node {
	p, _ := n[name].(node)
	return p
}

// jsonFields are the fields of a type as they stand in JSON: those of embedded
// types are its own.
func jsonFields(of reflect.Type) (fields []reflect.StructField) {
	for f := range of.Fields() {
		switch {
		case f.Anonymous && f.Tag.Get("json") == "":
			fields = append(fields, jsonFields(f.Type)...)
		case f.Tag.Get("json") != "-":
			fields = append(fields, f)
		}
	}
	return fields
}

// constants reads the constants of each type of strings from the source, sorted.
func constants(t *testing.T) map[string][]string {
	t.Helper()
	values := map[string][]string{}
	sources, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			consts, ok := decl.(*ast.GenDecl)
			if !ok || consts.Tok != token.CONST {
				continue
			}
			for _, spec := range consts.Specs {
				c := spec.(*ast.ValueSpec)
				if of, ok := c.Type.(*ast.Ident); ok {
					value, err := strconv.Unquote(c.Values[0].(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					values[of.Name] = append(values[of.Name], value)
				}
			}
		}
	}
	for _, v := range values {
		slices.Sort(v)
	}
	return values
}

// A webhook is told of every change, by a type of its own.
func TestWebhookTypes(t *testing.T) {
	schema := compile(t, "webhook")
	for _, change := range constants(t)["Change"] {
		w := NewWebhook(BatchEvent{ID: "c-1", No: 1, Batch: "b-1", Change: Change(change), To: StateOpen}, nil)
		text, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(decoded(t, text)); err != nil {
			t.Errorf("%s: %v", w.Type, err)
		}
	}
}
