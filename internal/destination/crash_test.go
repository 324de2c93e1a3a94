package destination

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/schemas"
)

// crashContent is what belongs under an output.
func crashContent(output string) string { return strings.Repeat(output+"\n", 2000) }

// crashChild writes groups until it is killed, and prints a line after each.
func crashChild(root string) {
	fatal := func(err error) {
		fmt.Println(err)
		os.Exit(1)
	}
	tree, err := OpenTree(root)
	if err != nil {
		fatal(err)
	}
	for round := 0; ; round++ {
		g := tree.Group(schemas.Settings{Overwrite: schemas.OverwriteIfDifferent}, []int{1, 64}[round%2])
		for i := range 32 {
			output := fmt.Sprintf("d%d/e%d/f%d", round%10, i/8, i%8)
			if err := put(g, i, output, crashContent(output)); err != nil {
				fatal(err)
			}
		}
		if codes := commit(g); len(codes) > 0 {
			fatal(fmt.Errorf("failed: %v", codes))
		}
		fmt.Println("committed", round)
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	sawStage := false
	for round := range 5 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), crashRoot+"="+root)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		for n := 0; n <= 2*round && lines.Scan(); n++ {
			if want := fmt.Sprint("committed ", n); lines.Text() != want {
				t.Errorf("got line %q, want %q", lines.Text(), want)
			}
		}
		must(t, child.Process.Kill())
		_ = child.Wait() // it was killed
		sawStage = sawStage || len(stages(t, root)) > 0

		committed := 0
		for name, content := range visible(t, root) {
			committed++
			if content != crashContent(name) {
				t.Errorf("%s: wrong content of %d bytes is visible", name, len(content))
			}
		}
		if committed < 32 {
			t.Errorf("%d files visible after a commit of 32", committed)
		}
		tree, err := OpenTree(root)
		must(t, err)
		if left := stages(t, root); len(left) > 0 {
			t.Errorf("not swept: %v", left)
		}
		must(t, tree.Close())
	}
	if !sawStage {
		t.Error("no child was killed at work")
	}
	var odd []string
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".") {
			odd = append(odd, path)
		}
		return err
	}))
	if diff := cmp.Diff([]string(nil), odd); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
}
