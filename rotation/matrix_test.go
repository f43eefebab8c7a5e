package rotation_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/keywright/keywright/rotation"
)

// cells are the rows of the fault matrix that are about rotations and files,
// each with the tests that play it.
var cells = map[string][]string{
	"C01": {"TestCrashCells"},
	"C02": {"TestCrashCells", "TestKilledAnywhere"},
	"C03": {"TestCrashCells", "TestKilledAnywhere"},
	"C04": {"TestCrashCells", "TestKilledAnywhere"},
	"C05": {"TestCrashCells", "TestJournalPowerCut"},
	"C06": {"TestCrashCells"},
	"C07": {"TestLag"},
	"C08": {"TestVerifyUnreachable"},
	"C09": {"TestCrashCells"},
	"C10": {"TestConflict", "TestCanarySink", "TestSinkDown"},
	"C11": {"TestCrashCells"},
	"C12": {"TestRetireLost"},
	"C13": {"TestOrphan", "TestRetireLost"},
	"C14": {"TestUnsaved", "TestJournalDiskFails"},
	"C15": {"TestJournalKeepsTheLastTwo", "TestTwoEngines"},
	"C16": {"TestClockIsSet", "TestSuspended", "TestRefusals"},
	"C17": {"TestRefusals"},
	"C18": {"TestKilledAnywhere"},
	"C19": {"TestRefusals", "TestForcedOverlap"},
	"C20": {"TestRefusals", "TestWrongClock"},
	"S01": {"sink/TestFilesKilledAnywhere", "../internal/durable/TestKill9", "TestKill9"},
	"S02": {"../internal/durable/TestReplaceKilledAnywhere", "TestJournalPowerCut"},
	"S03": {"../internal/durable/TestReplaceFails", "sink/TestFilesFail", "TestUnsaved"},
	"S04": {"../internal/durable/TestUmask"},
	"S05": {"../internal/durable/TestReplaceRefuses", "../internal/durable/TestReplaceLinkPlantedMeanwhile"},
	"S06": {"../internal/durable/TestReplaceRefuses", "../internal/durable/TestOSWorldWritable", "TestJournalRefusesAnOpenDirectory"},
	"S07": {"sink/TestDotenvOfManyProcesses"},
	"S08": {"TestJournalDamage", "TestDamagedJournal"},
	"S09": {"../internal/durable/TestSweep", "sink/TestFilesSweep"},
	"S10": {"../internal/durable/TestReplaceRenameRefused", "TestUnsaved"},
	"S11": {"../internal/durable/TestReplaceWithoutDirectory", "TestUnsaved"},
	"S12": {"../internal/durable/TestReadersWhileReplaced"},
}

// Every cell has its tests, and every test that a cell names is there.
func TestFaultMatrix(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../testdata/fault-matrix.tsv")
	require.NoError(t, err)
	rows := 0
	for line := range strings.Lines(string(b)) {
		cell, _, _ := strings.Cut(line, "\t")
		if len(cell) != 3 || cell[0] != 'C' && cell[0] != 'S' {
			continue
		}
		rows++
		assert.NotEmpty(t, cells[cell], "cell %s has no test", cell)
	}
	assert.Len(t, cells, rows)
	known := make(map[string]bool)
	for _, dir := range []string{".", "sink", "../internal/durable"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		require.NoError(t, err)
		for _, path := range files {
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			require.NoError(t, err)
			for _, d := range f.Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					known[filepath.Join(dir, f.Name.Name)] = true
				}
			}
		}
	}
	for cell, tests := range cells {
		for _, name := range tests {
			assert.True(t, known[filepath.Clean(name)], "cell %s names %s, which is not there", cell, name)
		}
	}
}

// The cells that say where the program is killed, with what the provider must
// have been asked when all is over.
func TestCrashCells(t *testing.T) {
	t.Parallel()
	for cell, at := range map[string]struct {
		state rotation.State // it is killed when this is durable,
		step  string         // or at this step of the disk or the wire
		asked int            // calls that issue a token before it was killed
	}{
		"C01 before the intent is durable": {state: rotation.StatePlanned},
		"C02 intent durable, before send":  {state: rotation.StateIntent},
		"C03 after send, before reply":     {step: "issue (before)", asked: 0},
		"C04 reply read, before store":     {step: "issue (after)", asked: 1},
		"C05 during the write":             {step: "disk write state.spare (after)", asked: 1},
		"C06 stored, before verify":        {state: rotation.StateIssued, asked: 1},
		"C09 before consumers switch":      {state: rotation.StateVerified, asked: 1},
		"C11 before retire":                {state: rotation.StateRetiring, asked: 1},
	} {
		for _, s := range []strategyName{paired, swap} {
			t.Run(cell+" "+string(s), func(t *testing.T) {
				t.Parallel()
				kill := 0
				if at.step != "" {
					kill = stepOf(t, s, strings.Replace(at.step, "issue", map[strategyName]string{
						paired: "wire POST /keys/2/rotate", swap: "wire POST /api/v1/credentials/",
					}[s], 1))
				}
				scene(t, s, func(t *testing.T, w *world) {
					asked := func() (n int) {
						for _, c := range w.sent {
							if (c.op == "rotate" || c.op == "create") && !c.forced {
								n++
							}
						}
						return n
					}
					if at.state != "" {
						stopAt(t, w, at.state, nil)
					} else {
						_, err := w.start(t.Context(), kill).rotate()
						require.Error(t, err)
					}
					assert.Equal(t, at.asked, asked())
					assert.Contains(t, w.accepted(), w.inSinks()[0])
					r, err := w.do(t, rotate, nil)
					require.NoError(t, err)
					require.NoError(t, w.over(r))
					assert.Equal(t, 1, asked(), "it was asked for once in all")
				})
			})
		}
	}
}

// stepOf returns the number of a step in an undisturbed rotation: the last of
// that name.
func stepOf(t *testing.T, s strategyName, step string) (n int) {
	t.Helper()
	w, err := newWorld(s)
	require.NoError(t, err)
	inWorld(t, w, func(t *testing.T) {
		p := w.start(t.Context(), 0)
		_, err = p.rotate()
		require.NoError(t, err)
		for i, name := range slices.Backward(p.names) {
			if name == step {
				n = i + 1
				break
			}
		}
	})
	require.NotZero(t, n, "no step is called %q", step)
	return n
}
