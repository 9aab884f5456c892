// What GitOps tools make of objects: kstatus by its own library, and Argo CD by the health scripts that are shipped, run
// by the interpreter that it uses. Objects come on standard input as a JSON array, the verdicts go out as another one.
// Used by operator/src/migration/decide/gitops_tests.rs.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// verdict is what is made of one object.
type verdict struct {
	Kstatus string `json:"kstatus"`
	Argo    string `json:"argo"`
	Message string `json:"message"`
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: gitops argocd-cm.yaml <objects.json"))
	}
	scripts, err := healthScripts(os.Args[1])
	fail(err)
	var objects []map[string]any
	fail(json.NewDecoder(os.Stdin).Decode(&objects))
	verdicts := []verdict{}
	for _, object := range objects {
		found, err := judge(&unstructured.Unstructured{Object: object}, scripts)
		fail(err)
		verdicts = append(verdicts, found)
	}
	fail(json.NewEncoder(os.Stdout).Encode(verdicts))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// healthScripts reads the data of Argo CD's ConfigMap.
func healthScripts(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var configMap struct {
		Data map[string]string `json:"data"`
	}
	return configMap.Data, yaml.UnmarshalStrict(text, &struct {
		APIVersion string             `json:"apiVersion"`
		Kind       string             `json:"kind"`
		Metadata   map[string]any     `json:"metadata"`
		Data       *map[string]string `json:"data"`
	}{Data: &configMap.Data})
}

func judge(object *unstructured.Unstructured, scripts map[string]string) (verdict, error) {
	// Numbers as a client of Kubernetes has them.
	text, err := json.Marshal(object.Object)
	if err != nil {
		return verdict{}, err
	}
	if err := object.UnmarshalJSON(text); err != nil {
		return verdict{}, err
	}
	result, err := status.Compute(object)
	if err != nil {
		return verdict{}, err
	}
	kind := object.GroupVersionKind()
	key := fmt.Sprintf("resource.customizations.health.%s_%s", kind.Group, kind.Kind)
	script, there := scripts[key]
	if !there {
		return verdict{}, fmt.Errorf("there is no %s", key)
	}
	argo, message, err := health(object, script)
	if err != nil {
		return verdict{}, fmt.Errorf("%s of %s: %w", key, object.GetName(), err)
	}
	return verdict{result.Status.String(), argo, message}, nil
}

// health runs a script as Argo CD does: without files, processes, the clock and the library for strings, within a second.
func health(object *unstructured.Unstructured, script string) (string, string, error) {
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	} {
		call := lua.P{Fn: l.NewFunction(open), Protect: true}
		if err := l.CallByParam(call, lua.LString(name)); err != nil {
			return "", "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	l.SetContext(ctx)
	l.SetGlobal("obj", value(l, object.Object))
	if err := l.DoString(script); err != nil {
		return "", "", err
	}
	answer, isTable := l.Get(-1).(*lua.LTable)
	if !isTable {
		return "", "", fmt.Errorf("the script gives no table but %s", l.Get(-1).Type())
	}
	found := answer.RawGetString("status").String()
	switch found {
	case "Healthy", "Progressing", "Suspended", "Degraded":
		return found, lua.LVAsString(answer.RawGetString("message")), nil
	}
	return "", "", fmt.Errorf("%q is no health of Argo CD", found)
}

func value(l *lua.LState, of any) lua.LValue {
	switch of := of.(type) {
	case bool:
		return lua.LBool(of)
	case string:
		return lua.LString(of)
	case int64:
		return lua.LNumber(of)
	case float64:
		return lua.LNumber(of)
	case []any:
		list := l.NewTable()
		for _, item := range of {
			list.Append(value(l, item))
		}
		return list
	case map[string]any:
		table := l.NewTable()
		for key, item := range of {
			table.RawSetString(key, value(l, item))
		}
		return table
	}
	return lua.LNil
}
