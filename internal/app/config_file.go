package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"

	"github.com/pelletier/go-toml/v2"
)

const (
	configFileVariable     = "CODEX_ARCHIVE_CONFIG"
	configDisabledVariable = "CODEX_ARCHIVE_CONFIG_DISABLED"

	configFileLimit = 1 << 20
)

// configFiles are looked for when no file is named.
var configFiles = []string{"exhume.toml", filepath.Join(".codex", "archive.toml")}

// fromFile are the values of the configuration file, if there is one.
func (l *configLoad) fromFile(o LoadOptions, environ map[string]string) []configGiven {
	if l.filesDisabled(o, environ) {
		return nil
	}
	path, doc, err := findConfigFile(o, environ[configFileVariable])
	if err != nil {
		l.problem("%w", err)
		return nil
	}
	l.File = path
	if path == "" {
		return nil
	}
	return l.decodeFile(path, doc)
}

// filesDisabled is the switch that leaves any file out.
func (l *configLoad) filesDisabled(o LoadOptions, environ map[string]string) bool {
	text := environ[configDisabledVariable]
	if text == "" {
		return false
	}
	yes, ok := configBool.parse(text)
	if !ok {
		l.problem("%s: %q is not %s", configDisabledVariable, text, configBool.allowed)
	}
	if yes == true && o.File != "" {
		l.Warnings = append(l.Warnings, fmt.Sprintf("the file %q of --config-file is not read: %s is set", o.File, configDisabledVariable))
	}
	return yes == true
}

// findConfigFile reads the file that applies. A file that is named must exist.
func findConfigFile(o LoadOptions, fromEnv string) (path string, doc []byte, err error) {
	named, by := o.File, "--config-file"
	if named == "" {
		named, by = fromEnv, configFileVariable
	}
	if named != "" {
		path = inDir(o.Dir, named)
		if doc, err = readConfigFile(path); err != nil {
			return "", nil, fmt.Errorf("configuration file %q, named by %s: %w", path, by, err)
		}
		return path, doc, nil
	}
	for _, name := range configFiles {
		path = inDir(o.Dir, name)
		doc, err = readConfigFile(path)
		switch {
		case err == nil:
			return path, doc, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return "", nil, fmt.Errorf("configuration file %q: %w; make it readable, or set %s=true", path, err, configDisabledVariable)
		}
	}
	return "", nil, nil
}

func inDir(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// readConfigFile reads a file; its errors don't repeat the file's name.
func readConfigFile(path string) (_ []byte, err error) {
	defer func() {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	doc, err := io.ReadAll(io.LimitReader(f, configFileLimit+1))
	if err == nil && len(doc) > configFileLimit {
		err = fmt.Errorf("larger than %s", ByteSize(configFileLimit))
	}
	return doc, err
}

// decodeFile decodes a file strictly: what exhume does not know is a mistake.
func (l *configLoad) decodeFile(path string, doc []byte) (given []configGiven) {
	shape := reflect.New(l.shape)
	err := toml.NewDecoder(bytes.NewReader(doc)).DisallowUnknownFields().Decode(shape.Interface())
	if err != nil && !l.unknownKeys(path, err) {
		l.notDecoded(path, err)
		return nil
	}
	for _, n := range l.names {
		value := shape.Elem().FieldByIndex(n.index).Interface()
		if value == nil {
			continue
		}
		if m, ok := value.(int64); ok && n.key == "exhume.mode" {
			value = fmt.Sprintf("%#o", m) // TOML writes octal too: 0o644
		}
		given = append(given, configGiven{n, value, configOrigin{configFromFile, path}})
	}
	return given
}

// unknownKeys reports the unknown keys, if those are what is wrong.
func (l *configLoad) unknownKeys(path string, err error) bool {
	strict, ok := errors.AsType[*toml.StrictMissingError](err)
	if !ok {
		return false
	}
	for _, e := range strict.Errors {
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		hint := ""
		if near := nearestKey(key, l.knownKeys()); near != "" {
			hint = "; did you mean " + near + "?"
		}
		l.problem("%s:%d: unknown key %s%s", path, line, plainKey(key), hint)
	}
	return true
}

// notDecoded reports that the file is not the TOML that it should be.
func (l *configLoad) notDecoded(path string, err error) {
	e, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		l.problem("%s: %w", path, err)
		return
	}
	line, column := e.Position()
	message := strings.TrimPrefix(e.Error(), "toml: ")
	if strings.HasPrefix(message, "cannot decode TOML") {
		// Any value fits into a setting, so it must be a section.
		l.problem("%s:%d: %s must be a section: write [%[3]s]", path, line, plainKey(strings.Join(e.Key(), ".")))
		return
	}
	l.problem("%s:%d:%d: %s", path, line, column, strings.ReplaceAll(message, "\n", " "))
}

// plainKey writes a key of a file on one line.
func plainKey(key string) string {
	if quoted := strconv.Quote(key); quoted != `"`+key+`"` {
		return quoted
	}
	return key
}
