package integration

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/exhume/exhume/integration/harness"
)

// composeProject loads docker-compose.yml with all its profiles.
func composeProject(t *testing.T) *types.Project {
	t.Helper()
	file, err := filepath.Abs("../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: filepath.Dir(file), ConfigFiles: []types.ConfigFile{{Filename: file, Content: text}}, Environment: types.Mapping{},
	}, func(o *loader.Options) { o.SetProjectName("exhume", true); o.Profiles = []string{"*"} })
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Each service of exhume has a command line that the program takes, and sets no
// variable that it does not know.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	p := composeProject(t)
	if !slices.Equal([]string{"collector", "demo", "demo-store", "migrate", "nats", "postgres", "worker"}, p.ServiceNames()) {
		t.Errorf("services %v", p.ServiceNames())
	}
	bin, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range p.Services {
		if s.Build == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
				t.Error(err)
			}
			if !s.ReadOnly || s.Privileged || len(s.CapDrop) == 0 {
				t.Errorf("not confined: %+v", s)
			}
			out, err := exec.Command(bin, append(slices.Clone(s.Command), "--help")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "exhume "+s.Command[0]) {
				t.Errorf("%v: %v\n%s", s.Command, err, out)
			}
			cmd := exec.Command(bin, "config-show")
			cmd.Dir, cmd.Env = t.TempDir(), harness.CleanEnv()
			for key, value := range s.Environment {
				if value == nil || *value == "" {
					t.Errorf("%s has no value", key)
					continue
				}
				cmd.Env = append(cmd.Env, key+"="+*value)
			}
			if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "warning:") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
