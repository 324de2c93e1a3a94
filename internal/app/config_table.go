package app

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// configSetting is one value of Config.
type configSetting struct {
	key  string // section.name
	flag string // what the command line calls it: --name
	// secret is how much of it is hidden.
	secret string
	index  []int // of the field in Config
}

// configName is one of the names of a setting: the one it has in a file and in
// the environment, or a second one in either.
type configName struct {
	*configSetting
	// key is what a file calls the setting; in a name of the environment alone
	// it is the setting's own key.
	key   string
	env   string
	rule  configRule
	index []int // of the field in the shape
}

// configTable is what the tags of Config say.
type configTable struct {
	settings []*configSetting // in the order of Config
	names    []configName
	sections []string
	// shape is a struct type that a file or the environment is decoded into. It
	// has the sections of Config and in them a field of type any for each name.
	// So whatever is written there decodes, one rule reads it wherever it
	// comes from, and all mistakes can be reported together.
	shape reflect.Type
}

var configTables = sync.OnceValue(func() *configTable {
	t := &configTable{}
	var sections []reflect.StructField
	for section := range reflect.TypeFor[Config]().Fields() {
		name := section.Tag.Get("toml")
		if name == "" {
			continue
		}
		shape := reflect.StructOf(t.addSection(name, section, len(sections)))
		sections = append(sections, configShapeField(len(sections), shape, name, "-"))
		t.sections = append(t.sections, name)
	}
	t.shape = reflect.StructOf(sections)
	return t
})

// addSection adds the settings of a section and gives the fields of its shape.
func (t *configTable) addSection(section string, of reflect.StructField, n int) (shape []reflect.StructField) {
	for f := range of.Type.Fields() {
		s := &configSetting{section + "." + f.Tag.Get("toml"), configFlag(f.Tag), f.Tag.Get("secret"), slices.Concat(of.Index, f.Index)}
		t.settings = append(t.settings, s)
		add := func(toml, env, key string, rule configRule) {
			t.names = append(t.names, configName{s, key, env, rule, []int{n, len(shape)}})
			shape = append(shape, configShapeField(len(shape), reflect.TypeFor[any](), toml, env))
		}
		add(f.Tag.Get("toml"), f.Tag.Get("env"), s.key, configRules[s.key])
		if alias := f.Tag.Get("alias"); alias != "" {
			add(alias, "-", section+"."+alias, configRules[s.key])
		}
		if alias := f.Tag.Get("envAlias"); alias != "" {
			add("-", alias, s.key, configRules[alias])
		}
	}
	return shape
}

func configShapeField(n int, t reflect.Type, toml, env string) reflect.StructField {
	return reflect.StructField{
		Name: fmt.Sprintf("F%d", n), Type: t,
		Tag: reflect.StructTag(fmt.Sprintf("toml:%q env:%q", toml, env)),
	}
}

// knownKeys are the sections and keys that a file may hold.
func (t *configTable) knownKeys() []string {
	keys := slices.Clone(t.sections)
	for _, n := range t.names {
		keys = append(keys, n.key)
	}
	return keys
}

// knownVariables are the variables that exhume reads.
func (t *configTable) knownVariables() []string {
	known := []string{configFileVariable, configDisabledVariable}
	for _, n := range t.names {
		if n.env != "-" {
			known = append(known, n.env)
		}
	}
	return known
}

// configFlag is how the command line calls a setting: its tag flag, else its key.
func configFlag(tag reflect.StructTag) string {
	if name := tag.Get("flag"); name != "" {
		return "--" + name
	}
	return "--" + strings.ReplaceAll(tag.Get("toml"), "_", "-")
}

// FlagKeys gives the keys of all settings by the name of the flag, without
// dashes, that a command which offers one uses for it.
func FlagKeys() map[string]string {
	keys := map[string]string{}
	for _, s := range configTables().settings {
		keys[strings.TrimPrefix(s.flag, "--")] = s.key
	}
	return keys
}
