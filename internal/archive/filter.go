package archive

import (
	"fmt"
	"strings"
)

// filter is what a Query asks of the items i, in SQL with a ? for each argument.
type filter struct {
	conditions []string
	args       []any
}

func (f *filter) add(condition string, args ...any) {
	f.conditions, f.args = append(f.conditions, condition), append(f.args, args...)
}

// where is the filter as a clause, empty if it keeps everything.
func (f *filter) where() string {
	if len(f.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(f.conditions, " AND ")
}

// comparison compares a column of text with a value, in a backend's own SQL.
type comparison func(column, value string) (condition string, args []any)

// newFilter is what all backends ask alike. equal compares to the letter; begins
// may find more than what begins with the value, but not less.
func newFilter(q Query, equal, begins comparison) *filter {
	f := new(filter)
	for _, c := range []struct{ column, value string }{
		{"i.repo", q.Repo}, {"i.kind", q.Kind}, {"i.reason", q.Reason}, {"i.archived_by", q.ArchivedBy},
	} {
		if c.value != "" {
			condition, args := equal(c.column, c.value)
			f.add(condition, args...)
		}
	}
	for _, tag := range q.Tags {
		condition, args := equal("t.tag", tag)
		f.add(`EXISTS (SELECT 1 FROM tag AS t WHERE t.item_id = i.id AND `+condition+`)`, args...)
	}
	f.addPaths(q.Paths, begins)
	if q.Restorable {
		f.add(fmt.Sprintf(`EXISTS (SELECT 1 FROM artifact AS b WHERE b.id = i.artifact_id AND
  (b.blob_bytes IS NOT NULL OR b.object_url <> '' AND substr(b.object_url, 1, %d) <> '%s'))`, len(purgeMark), purgeMark))
	}
	return f
}

// addPaths asks for what List would not leave out anyway, so that the database
// need not hand it over.
func (f *filter) addPaths(patterns []string, begins comparison) {
	all, err := parseGlobs(patterns)
	if err != nil {
		return // List says so
	}
	var either []string
	var args []any
	for _, prefix := range all.prefixes() {
		condition, a := begins("i.path", prefix)
		either, args = append(either, condition), append(args, a...)
	}
	if len(either) > 0 {
		f.add("("+strings.Join(either, " OR ")+")", args...)
	}
}

// same compares as the database does.
func same(column, value string) (string, []any) { return column + ` = ?`, []any{value} }

// like finds what begins with a value. The column's collation may find more.
func like(column, value string) (string, []any) {
	const escape = "!"
	escaped := strings.NewReplacer(escape, escape+escape, "%", escape+"%", "_", escape+"_").Replace(value)
	return column + ` LIKE ? ESCAPE '` + escape + `'`, []any{escaped + "%"}
}
