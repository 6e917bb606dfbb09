"""A collector: takes OTLP metrics over HTTP, or over TLS by the certificate and the key in the files that it is given, and prints what
it understood, a JSON line each. The first line is its port."""

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest, ExportMetricsServiceResponse


def attributes(pairs):
    return {pair.key: pair.value.string_value for pair in pairs}


def points(metric):
    """Its kind, and each value with its labels and times."""
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    of = [{"labels": attributes(p.attributes), "value": p.as_double, "from": p.start_time_unix_nano, "at": p.time_unix_nano} for p in data.data_points]
    is_counter = kind == "sum" and data.is_monotonic and data.aggregation_temporality == 2
    return {"kind": "counter" if is_counter else kind, "help": metric.description, "points": of}


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        request = ExportMetricsServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        (resource,) = request.resource_metrics
        (scope,) = resource.scope_metrics
        seen = {
            "path": self.path,
            "token": self.headers["authorization"],
            "resource": attributes(resource.resource.attributes),
            "metrics": {metric.name: points(metric) for metric in scope.metrics},
        }
        print(json.dumps(seen), flush=True)
        body = ExportMetricsServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Collector)
if len(sys.argv) > 2:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
