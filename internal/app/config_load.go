package app

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/caarlos0/env/v11"

	"github.com/exhume/exhume/internal/archive"
)

// LoadOptions say where a configuration comes from. The zero value is an
// ordinary call without flags.
type LoadOptions struct {
	// File is the file named on the command line, if any.
	File string
	// Environ is the environment, KEY=value each; nil means the process's own.
	Environ []string
	// Dir is where relative names of configuration files start and where they
	// are looked for; empty means the current directory.
	Dir string
	// Flags are the settings that the command line gives: key → text.
	Flags map[string]string
}

// The layers of a configuration, the weakest first.
const (
	configFromDefault = iota
	configFromFile
	configFromEnv
	configFromFlag
)

type configOrigin struct {
	layer int
	name  string
}

func (o configOrigin) String() string {
	return []string{"default", "file ", "env ", "flag "}[o.layer] + o.name
}

// configGiven is a value that a layer gives.
type configGiven struct {
	configName
	value  any // as it was decoded
	origin configOrigin
}

// configLoad is a configuration in the making.
type configLoad struct {
	*configTable
	Config
	problems []error
	refused  map[string]bool // settings, by key, with a problem
}

// LoadConfig reads the configuration: flags before environment before file
// before defaults, setting by setting. Everything that is wrong with any layer
// is reported together, a line each. Bad values count even where a stronger
// layer overrides them.
func LoadConfig(o LoadOptions) (*Config, error) {
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	environ := env.ToMap(o.Environ)
	l := &configLoad{configTable: configTables(), Config: defaultConfig(), refused: map[string]bool{}}
	l.origins = map[string]configOrigin{}

	l.take(l.fromFile(o, environ))
	l.take(l.fromEnv(environ))
	l.take(l.fromFlags(o.Flags))
	l.inferBackend()
	l.warn(environ)
	if len(l.problems) > 0 {
		return nil, errors.Join(l.problems...)
	}
	return &l.Config, nil
}

// LocalConfig is a configuration of its own below dir, with an archive.sqlite
// there, whatever files and environment say otherwise: for what must not touch
// anything that is there already. Changes are settings: key → text.
func LocalConfig(dir string, changes map[string]string) (*Config, error) {
	flags := map[string]string{
		"backend.url":         "sqlite:///" + filepath.Join(dir, "archive.sqlite"),
		"exhume.state_dir":    filepath.Join(dir, ".exhume"),
		"exhume.evidence_dir": filepath.Join(dir, ".codex", "evidence"),
	}
	maps.Copy(flags, changes)
	return LoadConfig(LoadOptions{Environ: []string{}, Dir: dir, Flags: flags})
}

func (l *configLoad) problem(format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf(format, args...))
}

// fromEnv are the values of the variables that are set and not empty.
func (l *configLoad) fromEnv(environ map[string]string) (given []configGiven) {
	byName := map[string]configName{}
	for _, n := range l.names {
		byName[n.env] = n
	}
	err := env.ParseWithOptions(reflect.New(l.shape).Interface(), env.Options{
		Environment: environ,
		FuncMap:     map[reflect.Type]env.ParserFunc{reflect.TypeFor[any](): func(s string) (any, error) { return s, nil }},
		OnSet: func(name string, value any, _ bool) {
			if value != "" {
				given = append(given, configGiven{byName[name], value, configOrigin{configFromEnv, name}})
			}
		},
	})
	if err != nil {
		l.problem("environment: %w", err)
	}
	return given
}

func (l *configLoad) fromFlags(flags map[string]string) (given []configGiven) {
	known := map[string]configName{}
	for _, n := range slices.Backward(l.names) { // the first name of a setting wins
		known[n.key] = n
	}
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		n, ok := known[key]
		if !ok {
			l.problem("flag for %q: there is no such setting", key)
			continue
		}
		given = append(given, configGiven{n, flags[key], configOrigin{configFromFlag, n.flag}})
	}
	return given
}

// take puts what one layer gives into the configuration.
func (l *configLoad) take(layer []configGiven) {
	type taken struct{ value, said, by any }
	before := map[string]taken{}
	for _, g := range layer {
		said, value, ok := g.read()
		if !ok {
			l.refused[g.configSetting.key] = true
			l.problem("%s: %s from %s is not %s", g.key, said, g.origin, g.rule.allowed)
			continue
		}
		by := g.key
		if g.origin.layer == configFromEnv {
			by = g.origin.name
		}
		b, twice := before[g.configSetting.key]
		switch {
		case !twice:
			before[g.configSetting.key] = taken{value, said, by}
			l.set(g.configSetting, value, g.origin)
		case !reflect.DeepEqual(b.value, value):
			l.refused[g.configSetting.key] = true
			l.problem("%s: %s is %s and %s is %s; keep one of them", g.origin.place(), b.by, b.said, by, said)
		}
	}
}

// place is where the values of a layer stand.
func (o configOrigin) place() string {
	if o.layer == configFromEnv {
		return "environment"
	}
	return o.String()
}

func (l *configLoad) set(s *configSetting, value any, from configOrigin) {
	reflect.ValueOf(&l.Config).Elem().FieldByIndex(s.index).Set(reflect.ValueOf(value))
	l.origins[s.key] = from
}

// read gives what was said, for people, and what it means, if it is allowed.
func (g *configGiven) read() (said string, value any, ok bool) {
	var text string
	switch v := g.value.(type) {
	case string:
		text = v
	case bool:
		text = strconv.FormatBool(v)
	case int64:
		text = strconv.FormatInt(v, 10)
	case float64:
		text = strconv.FormatFloat(v, 'g', -1, 64)
	case []any:
		return "a list", nil, false
	case map[string]any:
		return "a table", nil, false
	default:
		return "a date or time", nil, false
	}
	value, ok = g.rule.parse(text)
	said = fmt.Sprint((&Setting{Value: text, Secret: g.secret}).shown())
	return strconv.Quote(said), value, ok
}

// inferBackend makes the backend the one that the URL means. A backend given in
// a weaker layer than the URL gives way; otherwise the two must agree.
func (l *configLoad) inferBackend() {
	const backend, url = "backend.backend", "backend.url"
	if l.refused[backend] || l.refused[url] {
		return
	}
	at, err := archive.ParseURL(l.Backend.URL)
	switch {
	case err != nil:
		l.problem("%s from %s: %w", url, l.origins[url], err)
	case l.origins[backend].layer < l.origins[url].layer:
		l.Backend.Backend = at.Backend
		l.origins[backend] = l.origins[url]
	case l.Backend.Backend != at.Backend:
		l.problem("%s: %q from %s contradicts %s from %s, which is %s (%s); give a URL that fits, or the URL alone",
			backend, l.Backend.Backend, l.origins[backend], url, l.origins[url], at.Backend, archive.Redact(l.Backend.URL))
	}
}

// warn notes what is given in vain.
func (l *configLoad) warn(environ map[string]string) {
	if l.Logging.EvidenceFile != "" {
		l.Warnings = append(l.Warnings, fmt.Sprintf("logging.evidence_file from %s has no effect: the evidence is in the directory CODEX_EVIDENCE_DIR, now %q",
			l.origins["logging.evidence_file"], l.Exhume.EvidenceDir))
	}
	known := l.knownVariables()
	for _, name := range slices.Sorted(maps.Keys(environ)) {
		ours := strings.HasPrefix(name, "EXHUME_") || strings.HasPrefix(name, "CODEX_ARCHIVE_")
		if ours && environ[name] != "" && !slices.Contains(known, name) {
			l.Warnings = append(l.Warnings, fmt.Sprintf("%s is set but unknown and has no effect; the nearest known variable is %s",
				plainKey(name), nearestVariable(name, known)))
		}
	}
}
