"""The vendor's own gRPC client goes through one life of a collection, and prints what it sees, a line of JSON for each step.

The same script against a real server and the scripted one must print the same lines.
"""

import json
import sys
import time

from pymilvus import DataType, MilvusClient, MilvusException

uri, name, nullable = sys.argv[1], sys.argv[2], sys.argv[3] == "nullable"
client = MilvusClient(uri=uri)


def say(step, value):
    print(json.dumps([step, value], sort_keys=True, default=str), flush=True)


def code(step, call):
    try:
        call()
        say(step, "no error")
    except MilvusException as error:
        say(step, error.code)


say("has", client.has_collection(name))
code("describe absent", lambda: client.describe_collection(name))

schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("b", DataType.BOOL)
schema.add_field("i16", DataType.INT16)
schema.add_field("f", DataType.FLOAT)
schema.add_field("d", DataType.DOUBLE)
schema.add_field("t", DataType.VARCHAR, max_length=32, **({"nullable": True} if nullable else {}))
schema.add_field("j", DataType.JSON)
schema.add_field("a", DataType.ARRAY, element_type=DataType.INT64, max_capacity=4)
schema.add_field("v", DataType.FLOAT_VECTOR, dim=2)
client.create_collection(name, schema=schema)
fields = client.describe_collection(name)["fields"]
say("fields", [[f["name"], str(f["type"]), bool(f.get("is_primary"))] for f in fields])

code("count unloaded", lambda: client.query(name, filter="", output_fields=["count(*)"]))
index = client.prepare_index_params()
index.add_index(field_name="v", index_type="HNSW", metric_type="L2", params={"M": 8, "efConstruction": 32})
client.create_index(name, index, sync=False)
client.load_collection(name, _async=True)
for _ in range(600):
    if str(client.get_load_state(name)["state"]).endswith("Loaded"):
        break
    time.sleep(0.05)
say("load state", str(client.get_load_state(name)["state"]))


def row(key, **more):
    values = {"id": key, "b": True, "i16": -3, "f": 0.5, "d": 0.1, "t": "é\"\\", "j": {"k": [1, None]}, "a": [1, -2], "v": [1.0, -0.5]}
    return {**values, **more}


def plain(found):
    keep = lambda value: [float(x) for x in value] if hasattr(value, "tolist") else value
    return [{k: list(v) if k in ("a",) else keep(v) for k, v in sorted(dict(r).items())} for r in found]


everything = ["id", "b", "i16", "f", "d", "t", "j", "a", "v"]
strong = {"consistency_level": "Strong"}
say("upsert", client.upsert(name, [row(1), row(2, t="x", a=[]), row(2**53 + 1, i16=32767)])["upsert_count"])
say("count", [dict(r) for r in client.query(name, filter="", output_fields=["count(*)"], **strong)])
say("read", plain(sorted(client.query(name, filter="id in [1, 2, 9007199254740993]", output_fields=everything, **strong), key=lambda r: r["id"])))
client.upsert(name, [row(1, t="again", a=[7])])
say("replaced", plain(client.query(name, filter="id == 1", output_fields=everything, **strong)))
say("greater", [r["id"] for r in sorted(client.query(name, filter="id > 1", output_fields=["id"], **strong), key=lambda r: r["id"])])
if nullable:
    client.upsert(name, [row(3, t=None)])
    say("null", [r["t"] for r in client.query(name, filter="id == 3", output_fields=["t"], **strong)])
client.delete(name, filter="id in [2, 99]")
say("deleted", [r["id"] for r in client.query(name, filter="id in [1, 2]", output_fields=["id"], **strong)])
code("too long", lambda: client.upsert(name, [row(5, t="x" * 33)]))
code("too many", lambda: client.upsert(name, [row(5, a=[1, 2, 3, 4, 5])]))
say("nothing of it", [r["id"] for r in client.query(name, filter="id == 5", output_fields=["id"], **strong)])
client.create_alias(name, name + "_alias")
client.upsert(name + "_alias", [row(6)])
say("through the alias", [r["id"] for r in client.query(name + "_alias", filter="id == 6", output_fields=["id"], **strong)])
client.drop_alias(name + "_alias")
client.drop_collection(name)
say("has", client.has_collection(name))
